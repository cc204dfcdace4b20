"""Builds that compare, merge, check or keep values wrongly."""

from __future__ import annotations

from typing import Final

from stress.mutants.model import Edit, Mutant, Promise, suite

_MERGE = "            merged = merge(pending, theirs, self._policy)\n"

MEMORY: Final = (
    Mutant(
        "no-merge",
        "Saving writes all of memory over what others have changed.",
        Promise.CLOBBERED,
        (Edit("operations", "        if draft.is_new:\n", "        if True:\n"),),
        (suite("merge::TestMerging::test_a_key_that_others_changed_is_kept"),),
    ),
    Mutant(
        "conflict-written-anyway",
        "A save that raises ConflictError has written its own changes.",
        Promise.CLOBBERED,
        (
            Edit(
                "operations",
                _MERGE,
                "            draft._texts.update({key: one.mine for key, one in self.unsaved.items()})\n" + _MERGE,
            ),
        ),
        (suite("merge::TestRaise::test_nothing_is_written"),),
    ),
    Mutant(
        "conflict-not-raised",
        'on_conflict="raise" silently overwrites what others have changed.',
        Promise.CLOBBERED,
        (Edit("merge", "            refused += both.conflicts\n", "            pass\n"),),
        (suite("merge::TestRaise::test_a_conflict_raises"),),
    ),
    Mutant(
        "in-conflict-with-itself",
        "A context takes its own earlier call for a change by another process.",
        Promise.CLOBBERED,
        (Edit("draft", "elif own.text is not None and own.written > origin.mark:", "elif False:"),),
        (suite("groups::TestGroupCommit::test_an_earlier_call_of_the_same_context_is_not_a_conflict"),),
    ),
    Mutant(
        "compared-by-equality",
        "1, 1.0 and True are taken for the same value.",
        Promise.MEMORY,
        (Edit("values", "canonical(decode(one)) == canonical(decode(other))", "decode(one) == decode(other)"),),
        (
            suite("operations::TestCompareAndSet::test_equal_values_of_other_json_do_not_match"),
            suite("memory::TestExactness::test_equal_values_of_other_json_are_changes"),
        ),
    ),
    Mutant(
        "compared-by-spelling",
        "The same value in another spelling is taken for a change.",
        Promise.MEMORY,
        (Edit("values", "    return canonical(decode(one)) == canonical(decode(other))", "    return False"),),
        (suite("memory::TestTheSameValue"),),
    ),
    Mutant(
        "nan-accepted",
        "NaN is written as null, and comes back as None.",
        Promise.FAILURE,
        (Edit("values", 'text != b"null" or value is None', "True"),),
        (suite("refused_values::TestSaveRefuses::test_at_the_top_too[async-NaN]"),),
    ),
    Mutant(
        "unequal-values-accepted",
        "Tuples, sets, dates and values inside them are written as something else.",
        Promise.FAILURE,
        (Edit("values", "text) and decode(text) == value", "text)"),),
        (suite("refused_values::TestSaveRefuses::test_at_the_top_too[async-tuple]"),),
    ),
    Mutant(
        "memory-not-written-to-a-missing-file",
        "If the file is gone, a save writes only the unsaved changes.",
        Promise.LOST,
        (
            Edit(
                "operations",
                "            draft.put(self._memory(), ",
                "            draft.put({key: one.mine for key, one in self.unsaved.items()}, ",
            ),
        ),
        (suite("store::TestAFileThatIsGone::test_all_memory_is_written"),),
    ),
    Mutant(
        "load-keeps-unsaved-changes",
        "Loading keeps the unsaved changes in memory.",
        Promise.MEMORY,
        (
            Edit(
                "memory",
                "        self.data, self.seen, self._ahead = live, snapshot, {}\n",
                "        live.update({key: self.data[key] for key in self.unsaved_keys() if key in self.data})\n"
                "        self.data, self.seen, self._ahead = live, snapshot, {}\n",
            ),
        ),
        (suite("memory::TestLoading::test_load_drops_unsaved_changes"),),
    ),
    Mutant(
        "older-load-taken-for-newer",
        "A load that is overtaken by a save puts the values from before the save back into memory.",
        Promise.MEMORY,
        (Edit("memory", "        if position < self.position:\n            return False\n", ""),),
        (suite("aio::TestLoading::test_a_load_that_a_call_overtakes_is_not_taken_for_newer[save]"),),
    ),
    Mutant(
        "earlier-load-taken-for-later",
        "A load that ends last overwrites memory with what it read before a later load began.",
        Promise.MEMORY,
        (Edit("memory", "if position == self.position and began < self._read:", "if False:"),),
        (suite("tracking::TestReadings::test_one_does_not_undo_a_later_one"),),
    ),
    Mutant(
        "changes-taken-over-singly",
        "A save looks at each of the many keys that others have changed one by one.",
        Promise.MEMORY,
        (
            Edit(
                "memory",
                "concerned = (*self.data.touched, *self._flights.keys(), *self._ahead)",
                "concerned = (*differences.texts, *differences.gone)",
            ),
        ),
        (suite("tracking::TestManyChanges"),),
    ),
    Mutant(
        "look-in-the-midst-of-many-changes",
        "A key that a signal handler reads while many are being taken over is unsaved and not decoded.",
        Promise.MEMORY,
        (
            Edit(
                "live",
                "            if key in texts and dict.get(self, key) is texts[key]:  # a signal",
                "            if False:  # a signal",
            ),
        ),
        (
            suite(
                "live::TestTheLiveDictionary::test_a_key_that_is_looked_at_while_all_are_taken_over_has_the_new_value"
            ),
        ),
    ),
    Mutant(
        "change-during-a-call-lost",
        "A value that was set while a call was in flight is overwritten by the call's result.",
        Promise.MEMORY,
        (Edit("keys", "elif self._was_changed_since(key, mine, write):", "elif False:"),),
        (suite("operations::TestUnsavedChanges::test_a_set_during_an_incr_comes_after_it"),),
    ),
    Mutant(
        "copy-shares-memory",
        "Changing the result of get_all_data() changes the context.",
        Promise.MEMORY,
        (Edit("memory", "else _own_copy(value)", "else value"),),
        (suite("base::TestGetAllData"),),
    ),
    Mutant(
        "changes-in-place-not-seen",
        "A list or dictionary that was changed in place is taken for unchanged.",
        Promise.LOST,
        (
            Edit(
                "live",
                "        if value is touched.seen and is_scalar(value) and ",
                "        if value is touched.seen and ",
            ),
        ),
        (suite("memory::TestUnsavedKeys::test_a_value_changed_in_place_is_unsaved"),),
    ),
)
