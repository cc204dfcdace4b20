"""Builds whose documents are wrong at some moment, read too much or too little, or do more than asked."""

from __future__ import annotations

from typing import Final

from stress.mutants.model import Edit, Mutant, Promise, stress_of, suite

DOCUMENT: Final = (
    Mutant(
        "index-published-unfinished",
        "Other threads see the index of keys before it is complete, and take the missing keys for absent.",
        Promise.LOST,
        (
            Edit(
                "document",
                "        index: dict[str, int] = {}\n",
                "        index = self._index = {}\n",
            ),
        ),
        (suite("document::TestSharing::test_it_is_true_whenever_others_run"),),
    ),
    Mutant(
        "index-outlives-new-keys",
        "The index of keys is passed on to a document that has more keys, which are then taken for absent.",
        Promise.LOST,
        (
            Edit(
                "document",
                "        if same_keys and not new and all(",
                "        if same_keys and all(",
            ),
        ),
        (suite("document::TestWork::test_a_key_added_to_a_searched_document_is_found"),),
    ),
    Mutant(
        "never-indexed",
        "Every lookup of a key searches all pages.",
        Promise.LOOP,
        (
            Edit(
                "document",
                "            if self._passes > _PASSES_BEFORE_INDEX:\n",
                "            if False:\n",
            ),
        ),
        (suite("document::TestWork::test_asking_for_key_after_key_is_linear"),),
    ),
    Mutant(
        "grown-pages-never-split",
        "Values that grow one by one make a page as long as the file.",
        Promise.LOOP,
        (
            Edit(
                "page",
                "            if len(page.text) <= 2 * PAGE_BYTES:\n",
                "            if True:\n",
            ),
        ),
        (suite("document::TestWork::test_pages_that_grow_are_split"),),
    ),
    Mutant(
        "shrunken-pages-never-joined",
        "A file that once had many keys stays in many pages when it has few.",
        Promise.LOOP,
        (
            Edit(
                "document",
                "        if some and length + len(page.text) > PAGE_BYTES:\n",
                "        if some:\n",
            ),
        ),
        (suite("document::TestWork::test_pages_that_shrink_are_joined"),),
    ),
    Mutant(
        "moved-keys-stay",
        "A key that was deleted and set again keeps its old place in the file.",
        Promise.MEMORY,
        (Edit("document", " if key in new and key not in going}", " if key in new}"),),
        (suite("document::TestDocuments::test_moved_keys_stand_at_the_end_in_the_order_of_the_changes"),),
    ),
    Mutant(
        "comma-too-many-beside-known-pages",
        "A file with a trailing comma is accepted if the rest of it was known.",
        Promise.CLOBBERED,
        (Edit("parse", "    return (pages, keys) if pages else None\n", "    return pages, keys\n"),),
        (suite("document::TestStrictness::test_a_comma_too_many_is_found_beside_known_pages"),),
    ),
    Mutant(
        "pages-of-equal-length-taken-for-known",
        "A page that another process has changed without changing its length is taken for the known one.",
        Promise.LOST,
        (
            Edit(
                "parse",
                "        if stop > end or read(begin, len(page.body)) != page.body:\n",
                "        if stop > end:\n",
            ),
        ),
        (stress_of("--pages 2"),),
    ),
    Mutant(
        "repair-not-believed",
        "A large file is still said to repeat keys after it was repaired, and is copied aside again.",
        Promise.CLOBBERED,
        (
            Edit(
                "parse",
                "    if not middle and not gone and not known.repeats:\n",
                "    if not middle and not gone:\n",
            ),
        ),
        (suite("document::TestStrictness::test_a_file_that_was_repaired_repeats_no_keys_any_more"),),
    ),
    Mutant(
        "deep-on-short-lines-accepted",
        "Nesting that is too deep is accepted if its lines are short, and is written back as a corrupt file.",
        Promise.CLOBBERED,
        (
            Edit(
                "values",
                "    if entries is None or any(map(_too_deep, map(bytes, entries.values()))):\n",
                "    if entries is None:\n",
            ),
        ),
        (suite("document::TestStrictness::test_nesting_is_limited_in_every_layout"),),
    ),
    Mutant(
        "long-numbers-with-short-exponents-unchecked",
        "A number out of the range of floats is accepted, and raises an error when it is read.",
        Promise.FAILURE,
        (Edit("values", '_LONG_NUMBER: Final = b"0" * 200', '_LONG_NUMBER: Final = b"0" * 300'),),
        (suite("bad_lines::TestOneBadLineInALargeFile::test_load_moves_the_whole_file_aside"),),
    ),
    Mutant(
        "long-integers-taken-for-corruption",
        "A process with a lower limit on digits moves a valid file aside that another process wrote.",
        Promise.CLOBBERED,
        (
            Edit(
                "values",
                "    except TooManyDigitsError:\n        raise\n    except (msgspec",
                "    except (msgspec",
            ),
            Edit("parse", "    except TooManyDigitsError:\n        raise\n", ""),
        ),
        (suite("readable_documents::TestAnIntegerThatIsTooLong::test_it_is_found_where_the_rest_is_known"),),
    ),
    Mutant(
        "long-integers-written",
        "A process with a higher limit on digits writes numbers that others cannot read.",
        Promise.CLOBBERED,
        (Edit("values", "_SCALARS and (kind is str or len(text) <= MAX_DIGITS):", "_SCALARS:"),),
        (suite("values::TestTheLimitOfDigits::test_what_a_default_python_cannot_read_is_not_written"),),
    ),
    Mutant(
        "keys-kept-as-they-came",
        "A key of a str subclass gets into memory and into the cycle, with overridden methods.",
        Promise.FAILURE,
        (Edit("faults", "    return str.__str__(key)\n", "    return key\n"),),
        (suite("values::TestKeysOfSubclassesOfStr"),),
    ),
    Mutant(
        "errors-of-broken-classes-escape",
        "An error raised by a method of a value propagates unchanged, instead of as the error that names the place.",
        Promise.FAILURE,
        (
            Edit(
                "values",
                "    except Exception:  # from",
                "    except (TypeError, ValueError, msgspec.MsgspecError):  # from",
            ),
        ),
        (suite("values::TestClassesThatRaise::test_a_broken_value_is_refused_and_fails_its_own_call_only"),),
    ),
)
