"""Builds whose calls are cancelled, timed out, or ended wrongly."""

from __future__ import annotations

from typing import Final

from stress.mutants.model import Edit, Mutant, Promise, suite

_COMMIT = "    operation = workspace.commit()\n"
_COMMIT_UNLESS_ERROR = f"            if error is None:\n            {_COMMIT}"
_ENDS_ITSELF = "            self.abandon()\n"
_CLOSED = "closed_loops::TestCallsInFlight::"
_CHANGING_HANDS = "cancelled_waits::TestBehindAHeldLock::test_the_lock_comes_free_at_that_moment"

FACES: Final = (
    Mutant(
        "cancelled-call-abandoned",
        "A cancelled call ends while its cycle is still writing.",
        Promise.CANCELLING,
        (
            Edit(
                "aio_calls",
                "            while not request.arrived:\n",
                "            while False:\n",
            ),
        ),
        (suite("cancelling::TestAfterAnyTime::test_cancelled_after_some_rounds_of_the_loop"),),
    ),
    Mutant(
        "no-shield",
        "A cancel scope that keeps cancelling makes the loop spin while a cycle ends.",
        Promise.CANCELLING,
        (
            Edit(
                "aio_calls",
                "        with shielded():\n            while",
                "        with contextlib.nullcontext():\n            while",
            ),
        ),
        (suite("cancelling::TestAfterAnyTime::test_a_scope_that_cancels_again_and_again_does_not_keep_the_loop_busy"),),
    ),
    Mutant(
        "cancelled-transaction-keeps-the-lock",
        "A transaction that is cancelled just after it got its turn never gives it back.",
        Promise.CANCELLING,
        (
            Edit(
                "aio_calls",
                '                    await self.end(request.result, Operation("transaction"))\n',
                "                    pass\n",
            ),
            Edit("turn", _ENDS_ITSELF, "            pass\n"),
        ),
        (
            suite(
                _CHANGING_HANDS + "[the release-transaction]",
                limit=10,
            ),
        ),
    ),
    Mutant(
        "timeout-too-late",
        "A call waits for the lock far longer than its timeout.",
        Promise.STARVES,
        (
            Edit(
                "aio_calls",
                "_Flight(queue, began + patience if",
                "_Flight(queue, began + 1000 if",
            ),
        ),
        (suite("transaction::TestTimeout::test_it_names_the_holder[async]", limit=15),),
    ),
    Mutant(
        "aborted-transaction-commits",
        "A transaction whose body raised an error is written.",
        Promise.FAILURE,
        (
            Edit("aio_transaction", _COMMIT_UNLESS_ERROR, f"        {_COMMIT}"),
            Edit("blocking_transaction", _COMMIT_UNLESS_ERROR, f"        {_COMMIT}"),
        ),
        (suite("transaction::TestDiscard::test_an_exception_discards"),),
    ),
    Mutant(
        "saved-after-an-exception",
        "A context manager that is left by an exception saves the unfinished changes.",
        Promise.FAILURE,
        (
            Edit("aio", "        if error is None:\n            await self.save()", "        await self.save()"),
            Edit("blocking", "        if error is None:\n            self.save()", "        self.save()"),
        ),
        (suite("base::TestTheContextManager"),),
    ),
    Mutant(
        "file-read-in-the-loop",
        "Loading reads and splits the file in the event loop's thread.",
        Promise.LOOP,
        (
            Edit(
                "aio",
                "await executor.run(self._sync_load_internal)",
                "self._sync_load_internal()",
            ),
        ),
        (suite("aio::TestTheOriginalSpecification::test_load_and_save_run_in_the_default_executor[load]"),),
    ),
    Mutant(
        "file-written-in-the-loop",
        "Saving locks, reads, writes and syncs the file in the event loop's thread.",
        Promise.LOOP,
        (
            Edit(
                "aio",
                "await executor.run(self._sync_save_internal)",
                "self._sync_save_internal()",
            ),
        ),
        (suite("aio::TestTheOriginalSpecification::test_load_and_save_run_in_the_default_executor[save]"),),
    ),
    Mutant(
        "raw-text-printed",
        "Text written by others reaches the terminal unchanged, including escape sequences.",
        Promise.ACCESS,
        (Edit("_printable", 'text if text.isprintable() else "".join(', 'text or "".join('),),
        (suite("errors::TestPrinting"),),
    ),
    Mutant(
        "call-of-a-closed-loop-forgotten",
        "What a call of a closed loop has written counts as another writer's change, and is written again.",
        Promise.LOST,
        (
            Edit(
                "_api/aio",
                "        except GeneratorExit:\n            raise",
                "        except KeyError:\n            raise",
            ),
        ),
        (suite(f"{_CLOSED}test_one_that_has_begun_takes_effect"),),
    ),
    Mutant(
        "commit-of-a-closed-loop-forgotten",
        "The same, if it was the commit of a transaction.",
        Promise.LOST,
        (Edit("aio_transaction", "left=operation if is_left else None", ""),),
        (suite(f"{_CLOSED}test_a_commit_that_has_begun_takes_effect"),),
    ),
    Mutant(
        "calls-of-a-closed-loop-kept",
        "Calls of a closed loop that have not begun are carried out together with those of the next one.",
        Promise.LOST,
        (Edit("_api/aio", "home.calls.leave()", "pass"),),
        (suite(f"{_CLOSED}test_one_that_has_not_begun_is_withdrawn"),),
    ),
    Mutant(
        "failed-call-of-a-closed-loop-kept",
        "A call of a closed loop that has failed counts as in flight for ever.",
        Promise.MEMORY,
        (Edit("guarded", "over=writes) if writes else None", "over=writes) if False else None"),),
        (suite(f"{_CLOSED}test_one_that_fails_is_forgotten", limit=20),),
    ),
    Mutant(
        "turn-on-its-way-to-a-closed-loop",
        "A turn that comes when the loop has made its last step keeps the lock for ever.",
        Promise.STARVES,
        (Edit("aio_calls", "                request.result.abandon()\n", "                pass\n"),),
        (suite("closed_loops::TestTurns", limit=30),),
    ),
)
