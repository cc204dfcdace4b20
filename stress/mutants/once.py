"""Builds in which a value is computed more than once, or not for all callers."""

from __future__ import annotations

from typing import Final

from stress.mutants.model import Edit, Mutant, Promise, suite

_TAKES = (
    "        with self._lease(wanted.key):\n            value = self._find(wanted)\n            return self._compute"
)
_ONCE = "once::"
_FACES = f"{_ONCE}TestBothFaces::"
_TASKS = f"{_ONCE}TestTasks::"

ONCE: Final = (
    Mutant(
        "computed-by-every-worker",
        "A worker that waited computes the value again.",
        Promise.ONCE,
        (
            Edit(
                "blocking_once",
                "            return self._compute(wanted, factory, teardown) if value is MISSING else value\n",
                "            return self._compute(wanted, factory, teardown)\n",
            ),
        ),
        (suite("compute_once::TestComputeOnce::test_every_worker_runs_all_tests"),),
    ),
    Mutant(
        "torn-down-by-every-worker",
        "A value stays in the file after it was torn down, and every worker tears it down.",
        Promise.ONCE,
        (Edit("blocking_once", "                    tx.pop(wanted.key, None)\n", "                    pass\n"),),
        (suite("teardown::TestTeardown::test_it_runs_once_after_the_last_test[-n 3]"),),
    ),
    Mutant(
        "computed-by-every-task",
        "A task that waited computes the value again.",
        Promise.ONCE,
        (
            Edit(
                "aio_once",
                "            value = await self._find(wanted)\n"
                "            if value is not MISSING:\n"
                "                return value\n",
                "",
            ),
        ),
        (suite(f"{_TASKS}test_tasks_share_one_computation"),),
    ),
    Mutant(
        "computed-under-the-lock",
        "The lock of the file is held while the factory runs.",
        Promise.ONCE,
        (
            Edit(
                "blocking_once",
                _TAKES,
                _TAKES.replace("with self._lease(wanted.key)", "if True"),
            ),
            Edit(
                "blocking_once",
                "            with wanted.running():\n",
                "            with wanted.running(), self._transaction():\n",
            ),
        ),
        (suite("leases::TestComputeOnce::test_the_lock_is_free_while_others_wait"),),
    ),
    Mutant(
        "computed-without-a-lease",
        "Processes that ask at the same time all compute.",
        Promise.ONCE,
        (
            Edit(
                "blocking_once",
                _TAKES,
                _TAKES.replace("with self._lease(wanted.key)", "if True"),
            ),
        ),
        (suite("leases::TestComputeOnce::test_one_process_computes[sync]"),),
    ),
    Mutant(
        "memory-decides-what-is-computed",
        "A value that another process has deleted is still returned.",
        Promise.ONCE,
        (
            Edit(
                "once",
                "        return self.find({key: decode(text) for key, text in texts.items()}) if knows else MISSING\n",
                "        known = memory.data.base(self.key)\n"
                "        return MISSING if isinstance(known, Missing) else decode(known)\n",
            ),
        ),
        (suite(f"{_FACES}test_a_deleted_value_is_computed_again"),),
    ),
    Mutant(
        "computed-value-not-in-memory",
        "A value that another process has computed is returned, but is missing in memory.",
        Promise.MEMORY,
        (Edit("once", " if knows else MISSING\n", "\n"),),
        (suite(f"{_FACES}test_it_is_computed_once"),),
    ),
    Mutant(
        "computed-over-a-stored-value",
        "A computed value replaces one that was stored in the meantime.",
        Promise.CLOBBERED,
        (
            Edit(
                "once", "        if found is not MISSING:\n            return found\n        entries", "        entries"
            ),
        ),
        (suite(f"{_TASKS}test_the_first_value_stored_is_everybody_s"),),
    ),
    Mutant(
        "expiry-by-whoever-computed",
        "A value without a record is never computed again.",
        Promise.ONCE,
        (
            Edit(
                "once",
                "        if not isinstance(record, dict):\n            return False\n",
                "        if not isinstance(record, dict):\n            return True\n",
            ),
        ),
        (suite(f"{_ONCE}TestExpiry::test_a_record_that_says_nothing"),),
    ),
    Mutant(
        "record-outlives-its-value",
        "A new value keeps the time and version of an older one.",
        Promise.ONCE,
        (Edit("once", "            entries.pop(self._record_key, None)\n", "            pass\n"),),
        (suite(f"{_ONCE}TestExpiry::test_a_value_without_record_has_none_left_of_an_older_one"),),
    ),
    Mutant(
        "versions-as-python-compares-them",
        "Another version that Python considers equal is taken for the same.",
        Promise.ONCE,
        (
            Edit(
                "once",
                "not same(version, self.version)",
                "record.get('version') != decode(self.version)",
            ),
        ),
        (suite(f"{_ONCE}TestExpiry::test_another_version_is_computed_again"),),
    ),
    Mutant(
        "lease-released-under-a-running-thread",
        "When the call is cancelled, another one computes while the thread of the first one goes on.",
        Promise.CANCELLING,
        (Edit("aio_once", "        call.take_over(lease, computation)\n", ""),),
        (suite(f"{_TASKS}test_a_thread_outlives_the_cancelled_call"),),
    ),
    Mutant(
        "factory-waits-for-itself",
        "A factory that asks for its own key waits forever.",
        Promise.FAILURE,
        (Edit("once", "        if any(run.subject == (self.place, self.key) and not", "        if False and any(not"),),
        (suite(f"{_FACES}test_a_factory_that_asks_for_its_own_key", limit=10),),
    ),
    Mutant(
        "computation-never-ends",
        "What a factory has started, such as a server, cannot ask for the value after it was computed.",
        Promise.FAILURE,
        (Edit("once", "                computation.is_over = True\n", "                pass\n"),),
        (suite(f"{_TASKS}test_what_a_factory_started_may_ask_for_the_value"),),
    ),
    Mutant(
        "retry-refused",
        "A call that was cancelled cannot be repeated in the same task while its thread goes on.",
        Promise.FAILURE,
        (Edit("turn", "        disown(self._name)\n", ""),),
        (suite(f"{_TASKS}test_a_cancelled_call_may_be_repeated"),),
    ),
    Mutant(
        "stop-iteration-hangs",
        "A factory that raises StopIteration is waited for forever, on Python 3.11.",
        Promise.FAILURE,
        (Edit("aio_once", "    except StopIteration as error:", "    except ZeroDivisionError as error:"),),
        (suite(f"{_TASKS}test_a_factory_that_raises_stop_iteration", limit=10),),
    ),
    Mutant(
        "factory-in-the-loop",
        "A factory that is not async blocks the event loop.",
        Promise.LOOP,
        (Edit("aio_once", "        result = await run_in_pool(call.run)\n", "        result = call.run()\n"),),
        (suite(f"{_TASKS}test_a_factory_that_blocks_does_not_block_the_loop", limit=90),),
    ),
    Mutant(
        "unserialisable-value-without-its-factory",
        "The error for a value that JSON cannot hold does not show the value.",
        Promise.FAILURE,
        (Edit("once", "; the factory of {self.key!r} returned {_SHORT.repr(value)}", ""),),
        (suite(f"{_FACES}test_a_value_that_json_cannot_hold"),),
    ),
    Mutant(
        "once-without-a-cluster",
        "A value is not waited for while the cluster cannot be reached; the error is an internal one.",
        Promise.FAILURE,
        (Edit("once", "except (CorruptStateError, SessionLostError):  # to be", "except CorruptStateError:  # to be"),),
        (suite(f"{_FACES}test_a_store_that_cannot_be_reached"),),
    ),
    Mutant(
        "thread-of-a-closed-loop-not-waited-for",
        "A computation that a closed loop has left to a thread is taken for one that this call would wait for in vain.",
        Promise.ONCE,
        (Edit("owner", " and not holder.is_left_behind", ""),),
        (suite("closed_loops::TestComputations::test_the_thread_of_a_factory_is_waited_for"),),
    ),
    Mutant(
        "thread-of-a-closed-loop-waited-for-in-vain",
        "The lease of a computation whose loop was closed is never released.",
        Promise.ONCE,
        (Edit("queue", "pool.submit(gc.collect, self._thread_name)", "pass"),),
        (suite("closed_loops::TestComputations::test_the_thread_of_a_factory_is_waited_for", limit=20),),
    ),
    Mutant(
        "tracebacks-of-the-library",
        "A failing fixture shows tracebacks inside the library.",
        Promise.FAILURE,
        (Edit("blocking_once", "__tracebackhide__ = True", "__tracebackhide__ = False"),),
        (suite("compute_once::TestComputeOnce::test_a_value_that_json_cannot_hold[alone]"),),
    ),
)
