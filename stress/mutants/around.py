"""Builds whose pytest plugin tears down wrongly, or whose command line prints sequences that a terminal obeys."""

from __future__ import annotations

from typing import Final

from stress.mutants.model import Edit, Mutant, Promise, suite

PLUGIN: Final = "pytest_persistent_context"
_EACH_ONCE = "teardown::TestTeardown::test_one_that_fails"

AROUND: Final = (
    Mutant(
        "teardown-before-fixtures",
        "If the run is interrupted, values are torn down before the fixtures that use them are finalised.",
        Promise.ONCE,
        (
            Edit(
                PLUGIN,
                "        return (yield)\n    finally:\n        _finish(session)\n",
                "        _finish(session)\n    finally:\n        yield\n",
            ),
        ),
        (suite("teardown::TestTeardown::test_it_comes_after_the_fixtures_that_use_the_value"),),
    ),
    Mutant(
        "unkept-value-leaks",
        "What a factory started is not torn down if JSON cannot hold the value.",
        Promise.ONCE,
        (
            Edit(
                "blocking_once",
                "            if teardown and computed and not wanted.is_stored(self._link):\n",
                "            if False:\n",
            ),
        ),
        (suite("compute_once::TestComputeOnce::test_a_value_that_json_cannot_hold[alone]"),),
    ),
    Mutant(
        "discard-only-on-success",
        "A value whose teardown raised stays in the file, and every worker tears it down.",
        Promise.ONCE,
        (
            Edit(
                "blocking_once",
                "            finally:\n                with self._transaction() as tx:\n",
                "            except ZeroDivisionError:\n"
                "                pass\n"
                "            else:\n"
                "                with self._transaction() as tx:\n",
            ),
        ),
        (suite(_EACH_ONCE),),
    ),
    Mutant(
        "outcomes-of-pytest-escape",
        "A teardown that ends with pytest.fail or pytest.skip prevents the others.",
        Promise.ONCE,
        (Edit(PLUGIN, "            except BaseException as error:", "            except Exception as error:"),),
        (suite(_EACH_ONCE),),
    ),
    Mutant(
        "teardown-first-first",
        "The value that was computed first, which others may need, is torn down first.",
        Promise.ONCE,
        (
            Edit(
                PLUGIN,
                "self._own.discard(*self._teardowns.popitem())",
                "self._own.discard(key := next(iter(self._teardowns)), self._teardowns.pop(key))",
            ),
        ),
        (suite(_EACH_ONCE),),
    ),
    Mutant(
        "crash-time-not-noted",
        "A worker that crashes late is not waited for until it is replaced.",
        Promise.ONCE,
        (Edit(PLUGIN, "        os.utime(present)\n", ""),),
        (suite("teardown::TestTeardown::test_a_worker_that_crashed_after_a_while"),),
    ),
    Mutant(
        "teardown-failures-of-workers-lost",
        "A run passes although a worker could not tear down a value.",
        Promise.FAILURE,
        (Edit(PLUGIN, "    _failures(node.config).extend(output.get(_OUTPUT, ()))\n", "    del output\n"),),
        (suite(_EACH_ONCE),),
    ),
    Mutant(
        "waiting-worker-interrupted",
        "A worker that is waiting for the others when the run is interrupted tears nothing down.",
        Promise.ONCE,
        (Edit(PLUGIN, "lambda *_: moments.append(time.monotonic())", "signal.default_int_handler"),),
        (suite("teardown::TestTeardown::test_an_interruption_while_a_worker_waits_for_the_others"),),
    ),
    Mutant(
        "value-steers-the-terminal",
        "Values that the command line prints may contain sequences that a terminal obeys.",
        Promise.ACCESS,
        (
            Edit(
                "streams",
                "    return printable_json(json.dumps(value, ensure_ascii=False), sys.stdout.encoding)\n",
                "    return json.dumps(value, ensure_ascii=False)\n",
            ),
        ),
        (suite("main::TestReading::test_no_terminal_obeys_a_value"),),
    ),
    Mutant(
        "async-factory-not-cancelled",
        "An asynchronous factory that hangs cannot be interrupted.",
        Promise.CANCELLING,
        (
            Edit(
                "blocking_once",
                "                    self._loop.call_soon_threadsafe(self._task.cancel)\n",
                "                    pass\n",
            ),
        ),
        (suite("compute_once::TestComputeOnce::test_a_hanging_async_factory_is_interrupted", limit=20),),
    ),
)
