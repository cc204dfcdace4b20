"""Builds that guess, or silently do something that the user of a context has to ask for."""

from __future__ import annotations

from typing import Final

from stress.mutants.model import Edit, Mutant, Promise, suite

USAGE: Final = (
    Mutant(
        "unloaded-context-guesses",
        "A context that was never loaded answers as if the file had no keys.",
        Promise.MEMORY,
        (Edit("mapping", "        if not self._memory.is_loaded and (", "        if False and ("),),
        (suite("unloaded::TestRefusing::test_what_it_would_have_to_guess"),),
    ),
    Mutant(
        "deleted-keys-unknown",
        "A context that was never loaded forgets which keys it has deleted, or an operation has not found.",
        Promise.MEMORY,
        (Edit("live", "            partial(self._removed.append, key),\n", ""),),
        (suite("unloaded::TestKnown::test_what_calls_found_absent"),),
    ),
    Mutant(
        "deleted-keys-listed",
        "A transaction lists a key whose deletion is unsaved, and raises KeyError when it is read.",
        Promise.MEMORY,
        (
            Edit("workspace", "[key for key in self._keys if self._memory.deletes(key)]", "()"),
            Edit("workspace", "not self._memory.deletes(key) or key in self", "True"),
        ),
        (suite("transaction::TestUnsavedChanges::test_an_unsaved_deletion_is_seen_by_all_that_iterates"),),
    ),
    Mutant(
        "forgotten-return-stored",
        "A function that changes its argument and returns nothing replaces the value by null.",
        Promise.LOST,
        (Edit("updates", '        check_returned(value, "fn", key, [(argument, before)])\n', ""),),
        (suite("functions::TestAForgottenReturn::test_is_refused"),),
    ),
    Mutant(
        "forgotten-return-of-a-resolver-stored",
        "A resolver that changes its arguments and returns nothing replaces the value by null.",
        Promise.CLOBBERED,
        (Edit("merge", '            check_returned(value, "on_conflict", key, given)\n', ""),),
        (suite("functions::TestAResolver::test_a_forgotten_return_is_refused"),),
    ),
    Mutant(
        "coroutine-function-queued",
        "A coroutine function waits for the lock before it is refused.",
        Promise.FAILURE,
        (Edit("updates", '    check_not_async(fn, "fn")\n', ""),),
        (suite("functions::TestAsynchronousFunctions::test_a_coroutine_function_is_refused_at_the_call"),),
    ),
    Mutant(
        "coroutine-left-open",
        "A coroutine that a function has returned is not closed.",
        Promise.FAILURE,
        (Edit("functions", "            value.close()  # otherwise", "            pass  # otherwise"),),
        (suite("functions::TestAsynchronousFunctions::test_a_coroutine_that_it_returns_is_refused_and_closed"),),
    ),
    Mutant(
        "pickled-by-relative-path",
        "A relative path is pickled unchanged, and leads elsewhere in a process with another current directory.",
        Promise.CLOBBERED,
        (
            Edit(
                "_api/base",
                "is_url(self._path) else self._path\n        return partial",
                "True else 0\n        return partial",
            ),
        ),
        (suite("pickling::TestPickling::test_a_relative_path_leads_to_the_same_file"),),
    ),
    Mutant(
        "pickled-without-options",
        "A context that is sent to another process gets the default options.",
        Promise.CLOBBERED,
        (Edit("_api/base", "place, **self._options)", "place)"),),
        (suite("pickling::TestPickling::test_class_path_and_options_arrive"),),
    ),
    Mutant(
        "corrupt-file-moved-for-all",
        "A corrupt file is moved aside even if all calls of the cycle raise.",
        Promise.CLOBBERED,
        (Edit("cycle", "        if accepting:\n            session.set_aside()", "        session.set_aside()"),),
        (
            suite("corrupt_files::TestRaising::test_every_call_raises_and_leaves_the_file_alone"),
            suite("corrupt_files::TestDifferentPolicies::test_contexts_that_raise_never_have_it_moved"),
        ),
    ),
    Mutant(
        "policy-of-another-context",
        "If one context of a cycle moves a corrupt file aside, those that raise start from nothing as well.",
        Promise.FAILURE,
        (
            Edit(
                "cycle",
                "        accepting = [request for request in batch if not request.raises_if_corrupt]\n",
                "        accepting = [request for request in batch if not request.raises_if_corrupt]\n"
                "        for request in batch if accepting else ():\n"
                "            request.error = None\n"
                "        accepting = [*batch] if accepting else []\n",
            ),
        ),
        (suite("corrupt_files::TestDifferentPolicies::test_calls_of_one_cycle_each_get_their_own_outcome"),),
    ),
    Mutant(
        "transaction-on-a-corrupt-file",
        "A transaction ignores that its context raises if the file is corrupt.",
        Promise.CLOBBERED,
        (
            Edit(
                "queue",
                "            if batch and isinstance(batch[0], Begin) and read(batch, session, self.name):\n",
                "            if batch and isinstance(batch[0], Begin):\n"
                "                batch[0].raises_if_corrupt = False\n"
                "                read(batch, session, self.name)\n",
            ),
        ),
        (suite("corrupt_files::TestRaising::test_every_call_raises_and_leaves_the_file_alone[async-transaction]"),),
    ),
    Mutant(
        "damaged-journal-read-in-part",
        "A context that raises if its file is corrupt loads the rest of a damaged journal.",
        Promise.LOST,
        (Edit("journal/store", "            if number and whole:", "            if False:"),),
        (suite("corrupt_files::TestADamagedJournal::test_is_an_error_too[async-load]"),),
    ),
    Mutant(
        "empty-file-corrupt",
        "An empty file is moved aside.",
        Promise.FAILURE,
        (Edit("parse", "    if size == 0:\n        return EMPTY\n", ""),),
        (suite("empty_files::TestAnEmptyFile"),),
    ),
    Mutant(
        "empty-file-at-first-sight",
        "A file that a program has just truncated to rewrite it is taken for a new one.",
        Promise.CLOBBERED,
        (
            Edit(
                "jsonfile/file", "                if document.exists or opened is None:\n", "                if True:\n"
            ),
        ),
        (suite("empty_files::TestAWriterWithoutTheLock"),),
    ),
    Mutant(
        "read-only-file-replaced",
        "A file that its user may not write is replaced, since its directory allows it.",
        Promise.ACCESS,
        (Edit("jsonfile/access", "not may_write() and os.path", "not may_write() and not os.path"),),
        (suite("unwritable_files::TestAReadOnlyFile"),),
    ),
    Mutant(
        "read-only-journal-appended-to",
        "Changes of a file that its user may not write go into its journal.",
        Promise.ACCESS,
        (
            Edit(
                "journal/session",
                "    def _append(self, state: State, changes: Changes) -> None:\n"
                "        check_writable(self._journal.data_path)\n",
                "    def _append(self, state: State, changes: Changes) -> None:\n",
            ),
        ),
        (suite("unwritable_files::TestAReadOnlyFile::test_its_journal_is_not_appended_to_or_folded"),),
    ),
)
