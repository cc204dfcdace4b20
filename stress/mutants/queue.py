"""Builds in which the calls of one process disturb each other, or report something false."""

from __future__ import annotations

from typing import Final

from stress.mutants.model import Edit, Mutant, Promise, suite

_APPLIED = "            applied = [request for request in accepting if _apply(request, draft, name)]\n"
_FAILED = "    except BaseException as error:  # noqa: BLE001 - reported to the calls\n        failure = error\n"
_ELSEWHERE = """\
        if not pool.submit(partial(self._end_turn, sessions, batch, self._run_all), self._thread_name):
            self._end_turn(sessions, batch, self.run_elsewhere)
        elif hold is not None:"""
_IN_THE_EXECUTOR = """\
        import asyncio
        asyncio.get_event_loop().run_in_executor(None, self._end_turn, sessions, batch, self._run_all)
        if hold is not None:"""
_CLOSES = "    failure = _close(session, name) or failure\n"
_COUNTED = "            self._counts.note(session, purpose, over)\n"

QUEUE: Final = (
    Mutant(
        "no-exclusion-in-the-process",
        "Two threads of one process run cycles on the same file at once.",
        Promise.LOST,
        (
            Edit(
                "queue",
                "if not self._waiting or not self._busy.acquire(blocking=False):",
                "if not (self._busy.acquire(blocking=False) or True) or not self._waiting:",
            ),
            Edit("queue", "(self._busy.locked() and not even_if_busy)", "False"),
            Edit("flock", "bool(filelock.lock_descriptor(fd, blocking=False))", "True"),
        ),
        (suite("queue::TestOneCycleAtATime", limit=15),),
    ),
    Mutant(
        "two-cycles-at-once",
        "A second thread begins a cycle before the first one's has ended, and waits for its own process.",
        Promise.LOST,
        (
            Edit(
                "queue",
                "if not self._waiting or not self._busy.acquire(blocking=False):",
                "if not (self._busy.acquire(blocking=False) or True) or not self._waiting:",
            ),
            Edit("queue", "(self._busy.locked() and not even_if_busy)", "False"),
        ),
        (suite("queue::TestOneThreadAtATime", limit=15),),
    ),
    Mutant(
        "a-queue-for-each-context",
        "Contexts on the same file do not share a queue, so that each call takes its turn at the lock alone.",
        Promise.STARVES,
        (Edit("registry", "            found: Q | None = known()\n", "            found: Q | None = None\n"),),
        (suite("groups::TestGroupCommit::test_calls_that_wait_share_one_write"),),
    ),
    Mutant(
        "acknowledged-before-the-commit",
        "Calls are acknowledged before the file is written.",
        Promise.LOST,
        (
            Edit(
                "cycle",
                _APPLIED,
                _APPLIED + "            from .waiting import deliver\n            deliver(applied)\n"
                '            __import__("threading").Event().wait(0.1)\n',
            ),
        ),
        (
            suite(
                "operations::TestIncr::test_it_counts_from_what_others_wrote",
                "operations::TestIncr::test_other_keys_are_kept",
            ),
        ),
    ),
    Mutant(
        "acknowledged-before-the-session-is-closed",
        "Calls are acknowledged when the file is replaced, before the directory is synced.",
        Promise.LOST,
        (
            Edit(
                "cycle",
                _CLOSES,
                "    if applied and snapshot is not None:\n        from .waiting import deliver\n"
                "        for request in applied:\n"
                "            request.snapshot, request.position = snapshot, draft.position\n"
                "        deliver(applied)\n" + _CLOSES,
            ),
        ),
        (suite("cycle::TestAcknowledging::test_no_call_is_acknowledged_before_the_directory_is_synced"),),
    ),
    Mutant(
        "failed-directory-sync-acknowledged",
        "If the directory cannot be synced after the lock was released, no call gets the error.",
        Promise.LOST,
        (
            Edit(
                "cycle",
                "    except DurabilityUnknownError as error:\n        return error\n",
                "    except DurabilityUnknownError:\n        return None\n",
            ),
        ),
        (
            suite("durability::TestABrokenDisk::test_an_unsynced_directory_leaves_durability_unknown"),
            suite("durability::TestABrokenDisk::test_an_operation_says_so_too"),
            suite("durability::TestABrokenDisk::test_a_transaction_says_so_too"),
        ),
    ),
    Mutant(
        "failed-commit-noted",
        "A change that could not be written is recorded as the context's own text in the file.",
        Promise.CLOBBERED,
        (
            Edit(
                "cycle",
                "                try:\n                    session.commit(",
                "                draft.note(session.snapshot)\n"
                "                try:\n                    session.commit(",
            ),
        ),
        (suite("cycle::TestAFailedCommit::test_it_does_not_count_as_a_change"),),
    ),
    Mutant(
        "written-and-not-known",
        "A change that was written with unknown durability is not recorded, so memory takes it for unsaved.",
        Promise.MEMORY,
        (
            Edit(
                "cycle",
                "                except DurabilityUnknownError as error:  # it was written",
                "                except ZeroDivisionError as error:  # it was written",
            ),
        ),
        (suite("cycle::TestAFailedCommit::test_one_that_was_written_nevertheless_is_known"),),
    ),
    Mutant(
        "failed-commit-acknowledged",
        "A failed write is acknowledged.",
        Promise.LOST,
        (
            Edit(
                "cycle",
                "        request.error = request.error or _named(own_copy(error), name)\n",
                "        request.error = None\n",
            ),
        ),
        (suite("durability::TestABrokenDisk::test_it_can_be_repeated"),),
    ),
    Mutant(
        "results-mixed-up",
        "Two of the calls that share a cycle get each other's result.",
        Promise.FAILURE,
        (
            Edit(
                "cycle",
                _APPLIED,
                _APPLIED + "            batch[0].result, batch[-1].result = batch[-1].result, batch[0].result\n",
            ),
        ),
        (suite("groups::TestGroupCommit::test_every_call_gets_its_own_error"),),
    ),
    Mutant(
        "one-error-for-all",
        "A function that raises fails all calls that share its cycle.",
        Promise.FAILURE,
        (
            Edit(
                "cycle",
                _APPLIED,
                _APPLIED + "            for one in batch:\n"
                "                one.error = next((other.error for other in batch if other.error), None)\n",
            ),
        ),
        (suite("groups::TestGroups::test_a_function_that_raises_fails_only_its_own_call"),),
    ),
    Mutant(
        "failed-save-forgets-its-changes",
        "Changes that a save could not write are taken for saved.",
        Promise.FAILURE,
        (
            Edit(
                "cycle",
                _FAILED,
                _FAILED + "        snapshot = session.snapshot.changed(draft.changes().texts)\n",
            ),
        ),
        (suite("durability::TestABrokenDisk::test_an_unsynced_file_does_not_replace_the_old_one"),),
    ),
    Mutant(
        "withdrawn-call-takes-effect",
        "A call is applied although its caller was told that it is withdrawn.",
        Promise.CANCELLING,
        (
            Edit(
                "request",
                "        return self._fate.setdefault(None, _Fate.BEGUN) is _Fate.BEGUN\n",
                "        self._fate[None] = _Fate.BEGUN\n        return True\n",
            ),
            Edit(
                "waiting",
                "            self.remove(request)\n        return is_withdrawn\n",
                "            pass\n        return is_withdrawn\n",
            ),
        ),
        (suite("cancelled_waits::TestBehindAHeldLock::test_only_the_cancelled_ones_are_withdrawn"),),
    ),
    Mutant(
        "delivered-out-of-order",
        "A cycle's results may reach memory after those of a later cycle.",
        Promise.MEMORY,
        (
            Edit(
                "queue",
                _COUNTED + "        deliver(over)\n",
                _COUNTED + "        threading.Thread(target=deliver, args=[over], daemon=True).start()\n",
            ),
        ),
        (suite("queue::TestDelivery"),),
    ),
    Mutant(
        "timeout-names-nobody",
        "A wait that times out does not say which process holds the lock.",
        Promise.STARVES,
        (Edit("queue", "self.store.holder(probe=False)", "None"),),
        (suite("transaction::TestTimeout::test_it_carries_its_data"),),
    ),
    Mutant(
        "waiting-in-the-executor",
        "A thread of the default executor waits for the lock.",
        Promise.LOOP,
        (
            Edit(
                "queue",
                "            outcome = self._turn(wait=False)\n            while",
                "            outcome = self._turn(wait=True)\n            while",
            ),
        ),
        (suite("aio::TestManyWaiters::test_a_waiting_call_holds_no_thread_of_the_executor", limit=15),),
    ),
    Mutant(
        "transaction-ends-in-the-executor",
        "A transaction cannot end while the executor is full of calls that wait for it.",
        Promise.LOOP,
        (
            Edit(
                "queue",
                _ELSEWHERE,
                _IN_THE_EXECUTOR,
            ),
        ),
        (
            suite(
                "aio::TestManyWaiters::test_a_transaction_ends_though_calls_that_wait_for_it_fill_the_executor",
                limit=15,
            ),
        ),
    ),
    Mutant(
        "reentrancy-unchecked",
        "A task that calls the same file inside its own transaction waits for itself.",
        Promise.FAILURE,
        (Edit("queue", "if why := request.owner.why_not(self._cycle_thread, holder, coming):", "if why := None:"),),
        (
            suite("operations::TestMutate::test_a_function_that_calls_the_same_file_gets_an_error", limit=15),
            suite("exclusion::TestReentrancyOfTheAsyncFace::test_a_second_transaction_raises_at_once", limit=15),
        ),
    ),
    Mutant(
        "turned-link-not-followed",
        "A call goes to the file that a symbolic link led to before it was redirected.",
        Promise.LOST,
        (Edit("queue", "self._queue_of(place) is self", "True"),),
        (suite("place::TestLinks::test_a_link_that_was_turned_is_followed_again"),),
    ),
    Mutant(
        "left-behind-at-a-turned-link",
        "A call that waits while its symbolic link is redirected has the new file's queue run again and again.",
        Promise.STARVES,
        (
            Edit(
                "aio_calls",
                "            if is_turned or not queue.needs_running():\n",
                "            if not queue.needs_running():\n",
            ),
        ),
        (suite("queue::TestATurnedLink", limit=40),),
    ),
    Mutant(
        "a-listener-ends-the-thread",
        "An error raised by a metrics listener ends the cycle's thread, and its calls are never completed.",
        Promise.FAILURE,
        (Edit("metrics", "        except BaseException:", "        except ZeroDivisionError:"),),
        (suite("metrics::TestListening", limit=15),),
    ),
    Mutant(
        "a-listener-waits-for-itself",
        "A metrics listener that calls the same file waits for its own thread.",
        Promise.FAILURE,
        (
            Edit(
                "queue",
                _COUNTED,
                "            self._cycle_thread = None\n" + _COUNTED,
            ),
        ),
        (suite("metrics::TestListening", limit=15),),
    ),
)
