"""Builds that fail to say that a change, or a wait, belongs to the transaction that the program is inside of."""

from __future__ import annotations

from typing import Final

from stress.mutants.model import Edit, Mutant, Promise, suite

INSIDE: Final = (
    Mutant(
        "change-inside-unnoticed",
        "Changing the context inside its own transaction silently leaves a change unsaved.",
        Promise.FAILURE,
        (Edit("link", "owner is not None and Owner.current(blocks=False).is_inside(owner)", "False"),),
        (suite("changed_inside::TestInside::test_every_change_is_noticed"),),
    ),
    Mutant(
        "change-elsewhere-warned-of",
        "A task is warned about a change while another task is inside a transaction.",
        Promise.FAILURE,
        (Edit("link", "owner is not None and Owner.current(blocks=False).is_inside(owner)", "owner is not None"),),
        (suite("changed_inside::TestElsewhere"),),
    ),
    Mutant(
        "change-through-a-link-unnoticed",
        "A context whose path is a symlink is taken for one on another file.",
        Promise.FAILURE,
        (Edit("link", "self.place if queue is None else queue.name", "self.place"),),
        (suite("changed_inside::TestInside::test_through_whichever_context"),),
    ),
    Mutant(
        "transaction-inherited-by-a-fork",
        "A forked child takes its parent's transaction for its own.",
        Promise.FAILURE,
        (Edit("holds", "os.register_at_fork(after_in_child=open_transactions.clear)", "pass"),),
        (suite("changed_inside::TestElsewhere::test_a_forked_child"),),
    ),
    Mutant(
        "nothing-changed-and-warned-of",
        "Reading a key with setdefault() inside a transaction is taken for a change.",
        Promise.FAILURE,
        (Edit("mapping", "if open_transactions and key not in self._memory.data:", "if open_transactions:"),),
        (suite("changed_inside::TestInside::test_what_changes_nothing_is_fine"),),
    ),
    Mutant(
        "warning-of-a-line-of-the-library",
        "The warning names a line of the library, so Python shows it only once per program.",
        Promise.FAILURE,
        (Edit("inside", "stacklevel=_users_level()", "stacklevel=2"),),
        (suite("changed_inside::TestInside"),),
    ),
    Mutant(
        "wait-for-oneself-unnamed",
        "A call that times out does not say that it waited for a transaction of its own process.",
        Promise.STARVES,
        (Edit("holds", "None if hold is None else hold.describe()", "None"),),
        (suite("waiting_for_oneself::TestATransactionOfThisProcess"),),
    ),
    Mutant(
        "end-forgotten-before-its-thread",
        "A signal handler's call just before a transaction's end waits for the thread that it interrupts.",
        Promise.STARVES,
        (
            Edit(
                "queue",
                "        hold = open_transactions.get(self.name) if sessions else None\n",
                "        hold = open_transactions.pop(self.name, None) if sessions else None\n",
            ),
        ),
        (suite("waiting_for_oneself::TestTheEndOfATransaction::test_a_handler_that_interrupts_it"),),
    ),
    Mutant(
        "inside-what-is-ending",
        "A blocking call is refused while another thread ends the transaction of a task of the same loop.",
        Promise.FAILURE,
        (Edit("queue", "            hold.is_ending = True\n", "            pass\n"),),
        (suite("waiting_for_oneself::TestTheEndOfATransaction::test_a_blocking_call_of_another_task_waits_for_it"),),
    ),
    Mutant(
        "timeout-quotes-the-moment",
        "The error of a call that timed out gives the time that it waited as its timeout.",
        Promise.STARVES,
        (Edit("errors", 'within {timeout:g} s" if timeout else "at once"', 'within {waited:.3g} s"'),),
        (suite("waiting_for_oneself::TestOthers::test_the_timeout_is_that_of_the_call"),),
    ),
    Mutant(
        "inherited-lock-taken-for-ones-own",
        "A lock that the parent process took is shown as held by the child that inherited the open file.",
        Promise.STARVES,
        (Edit("flock", "any(lock[2:6:3] == taken_here for lock in locks)", "locks"),),
        (suite("waiting_for_oneself::TestOthers::test_a_lock_that_the_parent_took"),),
    ),
    Mutant(
        "persists-because-the-file-has-it",
        "In a context for tasks, setting an undeclared name that happens to be in the file changes the file.",
        Promise.CLOBBERED,
        (
            Edit(
                "runtime",
                "        if key in self._names:\n            self._persistent[key] = value",
                """\
        if key in self._names or key in self._persistent:
            self._persistent[key] = value""",
            ),
        ),
        (suite("runtime::TestUndeclaredNames"),),
    ),
    Mutant(
        "variable-because-the-file-lacks-it",
        "In a context for tasks, setting a declared name that the file lacks makes a variable, which is never saved.",
        Promise.LOST,
        (
            Edit(
                "runtime",
                "        if key in self._names:\n            self._persistent[key] = value",
                """\
        if key in self._names and key in self._persistent:
            self._persistent[key] = value""",
            ),
        ),
        (suite("runtime::TestDeclaring"),),
    ),
    Mutant(
        "persistent-data-hidden",
        "A runtime variable silently hides a key of the persistent data.",
        Promise.FAILURE,
        (Edit("runtime", "if name in self._persistent and not any(name in layer for layer in layers):", "if False:"),),
        (suite("runtime::TestUndeclaredNames"),),
    ),
    Mutant(
        "change-that-nobody-sees",
        "An atomic call changes a key of the persistent data that a runtime variable hides.",
        Promise.FAILURE,
        (
            Edit(
                "runtime",
                'if any(key in layer for layer in self._layers):\n            msg = f"{key!r} is a r',
                'if False:\n            msg = f"{key!r} is a r',
            ),
        ),
        (suite("runtime::TestThePersistentData"),),
    ),
)
