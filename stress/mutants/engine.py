"""Builds that fail when a call is interrupted, repeated or re-entered, or when threads cannot be started."""

from __future__ import annotations

from typing import Final

from stress.mutants.model import Edit, Mutant, Promise, suite

_TURNED = "request::TestWithdrawnWhileTheLinkIsTurned::"
_DELIVERS_THE_TRIES = "            deliver([request for request in trying if self.withdraw(request)])\n"

ENGINE: Final = (
    Mutant(
        "repeated-in-another-order",
        "Calls whose cycle is repeated under a new lock are applied in reverse order.",
        Promise.FAILURE,
        (Edit("waiting", "self._calls.extendleft(reversed(again))", "self._calls.extendleft(again)"),),
        (suite("queue::TestALostCycle::test_its_calls_are_applied_again_in_their_order"),),
    ),
    Mutant(
        "failed-in-a-lost-cycle-untold",
        "A call that failed in a cycle that has to be repeated is never completed.",
        Promise.FAILURE,
        (
            Edit(
                "queue",
                "over = [request for request in batch if request not in again]",
                "over = [] if again else list(batch)",
            ),
        ),
        (suite("queue::TestALostCycle::test_a_call_that_failed_in_it_is_over", limit=20),),
    ),
    Mutant(
        "repeated-though-nobody-waits",
        "A call that timed out or was interrupted waits again when its cycle has to be repeated.",
        Promise.CANCELLING,
        (
            Edit(
                "request",
                "        return not (self._is_unwanted and self.withdraw())\n",
                "        return True\n",
            ),
        ),
        (suite("waiting::TestTheLockIsTakenAway::test_a_cancelled_call_ends", limit=20),),
    ),
    Mutant(
        "durable-if-all-are",
        "A durable call that shares its cycle with one that is not durable is not synced.",
        Promise.LOST,
        (Edit("cycle", "any(request.durable", "all(request.durable"),),
        (suite("queue::TestACycleOfSeveral::test_it_is_durable_if_one_of_them_is"),),
    ),
    Mutant(
        "file-name-overwritten",
        "The file name in an error is replaced by another one.",
        Promise.FAILURE,
        (Edit("cycle", "error.errno is not None and error.filename is None:", "error.errno is not None:"),),
        (suite("queue::TestACycleOfSeveral::test_an_error_that_names_a_file_keeps_its_name"),),
    ),
    Mutant(
        "no-try-where-others-waited",
        "A call with timeout 0 is refused without a try if the lock had to be waited for before.",
        Promise.STARVES,
        (
            Edit("queue", "if trying or not self.is_contended:", "if not self.is_contended:"),
            Edit("queue", "if outcome is not None or self._is_held_up():", "if True:"),
        ),
        (suite("queue::TestCallsThatOnlyTry::test_it_gets_its_try_though_others_had_to_wait"),),
    ),
    Mutant(
        "refused-though-the-lock-is-free",
        "A call with timeout 0 is refused because another thread of this process is slow to take the free lock.",
        Promise.STARVES,
        (Edit("queue", "self.store.is_waiting()", "self._waiting_since is not None"),),
        (suite("queue::TestCallsThatOnlyTry::test_it_is_tried_however_slow_the_thread_that_begins_the_cycle"),),
    ),
    Mutant(
        "who-only-tries-waits",
        "A call with timeout 0 waits for the lock.",
        Promise.STARVES,
        (Edit("queue", _DELIVERS_THE_TRIES, "            pass\n"),),
        (suite("queue::TestCallsThatOnlyTry::test_it_leaves_no_waiting_thread", limit=20),),
    ),
    Mutant(
        "who-only-tried-is-kept",
        "Calls with timeout 0 that did not get the lock stay in the queue until another cycle runs.",
        Promise.MEMORY,
        (
            Edit(
                "waiting",
                "            self.remove(request)\n        return is_withdrawn\n",
                "            pass\n        return is_withdrawn\n",
            ),
        ),
        (suite("queue::TestWhatIsLeftBehind::test_calls_that_only_tried_are_not_kept"),),
    ),
    Mutant(
        "refused-call-is-kept",
        "A context keeps references to calls that could not even be queued.",
        Promise.MEMORY,
        (
            Edit(
                "aio",
                "        try:\n            return await self._enter_loop().calls.perform(",
                "        calls = self._enter_loop().calls\n        try:\n            return await calls.perform(",
            ),
            Edit(
                "blocking_calls",
                "        try:\n            queue = self._link.here_or_found()\n",
                "        queue = self._link.here_or_found()\n        try:\n",
            ),
        ),
        (
            suite("queue::TestWhatIsLeftBehind::test_a_refused_call_is_not_kept[async]"),
            suite("base::TestACallThatIsNotQueued::test_it_is_not_kept[sync]"),
        ),
    ),
    Mutant(
        "failed-wait-goes-on",
        "A thread whose wait for the lock has failed still counts as waiting.",
        Promise.STARVES,
        (
            Edit(
                "queue",
                "        except BaseException:\n            self._waiting_since = None\n            raise\n",
                "        except BaseException:\n            raise\n",
            ),
        ),
        (suite("queue::TestWhatIsLeftBehind::test_an_error_while_waiting_is_over_with_its_cycle"),),
    ),
    Mutant(
        "withdrawn-call-is-kept",
        "A context keeps references to calls that were cancelled.",
        Promise.MEMORY,
        (
            Edit(
                "aio_calls",
                "            self._in_flight.pop(request, None)\n            if isinstance",
                "            if isinstance",
            ),
        ),
        (suite("queue::TestWhatIsLeftBehind::test_a_withdrawn_call_is_not_kept"),),
    ),
    Mutant(
        "told-twice",
        "A call that completes while it is being cancelled has its result set twice.",
        Promise.CANCELLING,
        (Edit("aio_calls", "if not request.waiter.done():", "if True:"),),
        (suite("queue::TestWhatIsLeftBehind::test_a_call_is_completed_once"),),
    ),
    Mutant(
        "child-counts-on-its-parents-threads",
        "A forked child hands its jobs to threads that exist only in its parent.",
        Promise.FAILURE,
        (Edit("worker", "os.register_at_fork(after_in_child=pool.forget)", "pass"),),
        (suite("queue::TestWhatIsLeftBehind::test_a_forked_child_has_threads_and_a_queue_of_its_own", limit=30),),
    ),
    Mutant(
        "child-has-its-parents-queue",
        "A forked child waits for a thread that exists only in its parent.",
        Promise.FAILURE,
        (Edit("registry", "    _queues.clear()\n", ""),),
        (suite("queue::TestWhatIsLeftBehind::test_a_forked_child_has_threads_and_a_queue_of_its_own", limit=30),),
    ),
    Mutant(
        "child-has-its-parents-statistics",
        "The statistics of a forked child include what its parent has done.",
        Promise.FAILURE,
        (
            Edit(
                "_api/base",
                "        queue = self._link.here()\n        return Statistics()",
                "        queue = self._link._queue\n        return Statistics()",
            ),
        ),
        (suite("queue::TestWhatIsLeftBehind::test_a_forked_child_has_statistics_of_its_own", limit=30),),
    ),
    Mutant(
        "interrupted-call-takes-effect",
        "A blocking call that a signal handler's exception ends is carried out later.",
        Promise.CANCELLING,
        (
            Edit(
                "blocking_calls",
                "if queue is not None and request is not None and not queue.withdraw(request):\n",
                "if False:\n",
            ),
        ),
        (suite("signals::TestAnExceptionWhileACallWaits::test_a_handler_that_raises_withdraws_the_call", limit=40),),
    ),
    Mutant(
        "interrupt-ends-the-wait-for-a-commit",
        "An interrupt at the end of a blocking transaction propagates before the commit has finished.",
        Promise.CANCELLING,
        (Edit("blocking_calls", "            turn.end(request)\n            self._wait_out(request)\n", ""),),
        (suite("queue::TestAnInterrupt", limit=40),),
    ),
    Mutant(
        "second-interrupt-keeps-the-lock",
        "A second interrupt at the end of a blocking transaction, while the first one is waited out, leaves it open.",
        Promise.CANCELLING,
        (
            Edit(
                "blocking_transaction",
                "        turn.abandon()\n        workspace.close()",
                "        workspace.close()",
            ),
            Edit("turn", "            self.abandon()\n", "            pass\n"),
        ),
        (suite("interrupts::TestInterrupts::test_a_second_one_at_the_end_of_a_transaction", limit=15),),
    ),
    Mutant(
        "thrown-away-transaction-keeps-the-lock",
        "A transaction whose task is discarded together with its loop never releases the lock.",
        Promise.CANCELLING,
        (
            Edit("turn", "            self.abandon()\n", "            pass\n"),
            Edit("aio_transaction", "                    turn.abandon()\n", "                    pass\n"),
        ),
        (suite("shutdown::TestALoopIsThrownAway::test_an_open_transaction_goes_with_its_loop", limit=40),),
    ),
    Mutant(
        "cancelled-driver-runs-the-queue",
        "A context relies on a cancelled task to run the queue.",
        Promise.CANCELLING,
        (
            Edit("aio_calls", "if self._driver is None or self._driver.done():", "if self._driver is None:"),
            Edit(
                "aio_calls", "            queue.look_after(even_if_busy=self._has_impatient())\n", "            pass\n"
            ),
        ),
        (suite("shutdown::TestAllTasksAreCancelled::test_a_context_goes_on_after_all_tasks_were_cancelled", limit=40),),
    ),
    Mutant(
        "timeout-by-naps",
        "A blocking call checks its timeout only now and then.",
        Promise.STARVES,
        (Edit("blocking_calls", "min(left, nap) if left > 0 else nap", "nap"),),
        (suite("waiting::TestTimeoutsAreExact::test_of_threads", limit=40),),
    ),
    Mutant(
        "one-timeout-is-enough",
        "After one call has timed out, the timeouts of the others are no longer checked.",
        Promise.STARVES,
        (Edit("aio_calls", "        self._set_clock(min(max(coming,", "        max(0, min(max(coming,"),),
        (suite("waiting::TestTimeoutsAreExact::test_beside_calls_that_time_out_earlier", limit=40),),
    ),
    Mutant(
        "full-executor-is-waited-for",
        "No call makes progress while the default executor is full.",
        Promise.LOOP,
        (Edit("aio_executor", "SOON_SECONDS: Final = 0.05", "SOON_SECONDS: Final = 1000"),),
        (suite("waiting::TestTheExecutorIsFullOfThreadsThatCallUs::test_they_are_served", limit=60),),
    ),
    Mutant(
        "no-thread-no-service",
        "If no thread can be started, calls are not carried out.",
        Promise.FAILURE,
        (
            Edit(
                "worker",
                "            except (RuntimeError, MemoryError):\n                return False\n",
                "            except ZeroDivisionError:\n                return False\n",
            ),
        ),
        (suite("worker::TestThePool::test_without_a_thread_the_caller_does_it", limit=20),),
    ),
    Mutant(
        "uncopyable-error-ends-the-thread",
        "An error that cannot be copied ends the cycle's thread, and its calls are never completed.",
        Promise.FAILURE,
        (
            Edit(
                "cycle",
                "    except Exception:  # noqa: BLE001 - from",
                "    except ZeroDivisionError:  # noqa: BLE001 - from",
            ),
        ),
        (suite("request::TestALoggingHandlerThatRaises", limit=60),),
    ),
    Mutant(
        "failed-unlock-ends-the-thread",
        "An error while the session is closed ends the cycle's thread, and its calls are never completed.",
        Promise.FAILURE,
        (
            Edit(
                "cycle",
                "    except BaseException:  # out of memory",
                "    except ZeroDivisionError:  # out of memory",
            ),
        ),
        (suite("request::TestNoMemoryAtTheEndOfACycle", limit=60),),
    ),
    Mutant(
        "failed-beginning-keeps-the-lock",
        "A transaction that cannot begin because the file cannot be read leaves its session open.",
        Promise.STARVES,
        (
            Edit(
                "queue",
                "                carry_out([], session, self.name)\n            self._deliver(over",
                "                pass\n            self._deliver(over",
            ),
        ),
        (suite("cycle::TestABeginningThatFails::test_it_leaves_the_lock_free"),),
    ),
    Mutant(
        "withdrawn-on-its-way-takes-effect",
        "A call that is withdrawn while its symbolic link is redirected is carried out in the other file.",
        Promise.CANCELLING,
        (
            Edit(
                "queue",
                "                self._queue_of(place).adopt(request)\n",
                "                request._fate = {}\n                self._queue_of(place).adopt(request)\n",
            ),
        ),
        (suite(_TURNED + "test_it_has_no_effect_if_it_is_cancelled_while_its_file_is_looked_up"),),
    ),
    Mutant(
        "a-thread-is-inside",
        "A thread of a pool counts as being inside a transaction that it entered for another task.",
        Promise.FAILURE,
        (Edit("owner", "bool(holder.stays) and holder.stays[-1] in self.stays", "True"),),
        (suite("queue::TestWhoIsInside", limit=40),),
    ),
    Mutant(
        "loop-blocked-behind-its-own-transaction",
        "A blocking call in a loop's thread waits behind a transaction that only this loop can end.",
        Promise.LOOP,
        (
            Edit(
                "owner",
                "        return self.blocks and not other.blocks and",
                "        return False and not other.blocks and",
            ),
        ),
        (suite("waiting::TestTheLoopIsNotStalled::test_by_a_blocking_call_behind_its_own_transaction", limit=60),),
    ),
    Mutant(
        "deleted-lock-waited-for",
        "A process waits forever for a lock file that was deleted while its holder was stopped.",
        Promise.STARVES,
        (Edit("queue", "self.store.abandon_vain_wait() and", "False and"),),
        (suite("waiting::TestTheLockIsTakenAway::test_one_who_waits_behind_a_stopped_holder_goes_on", limit=60),),
    ),
)
