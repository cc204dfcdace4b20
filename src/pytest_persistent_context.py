"""The pytest plugin: data that the workers of a run share, and values that are computed once for all of them.

It is a module beside the package, which it imports only when a fixture is first requested: a suite that uses none of
the fixtures only pays for an empty file per pytest-xdist worker.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from persistent_context import PersistentContext, SyncPersistentContext
    from persistent_context._api.once_file import OnceFile

__tracebackhide__ = True  # pytest leaves these frames out of tracebacks

_OPTION: Final = "shared_context"
_SCHEMES: Final = ("etcd://", "etcd+tls://")
"""How a URL begins; the package knows it as well, but is not imported where no fixture is used."""
_CRASHED: Final = ".crashed"
_POLL_SECONDS: Final = 0.02
_REPLACED_WITHIN_SECONDS: Final = 3.0
"""How soon pytest-xdist starts to replace a crashed worker, if it does."""
_INTERRUPTED_WITHIN_SECONDS: Final = 3.0
"""How soon workers that are interrupted together finish their tests, if they ever do."""


class ComputeOnce:
    """The value of the fixture ``compute_once``: a function that computes values once for all workers.

    Args:
        own: for values of this run.
        shared: for values that other runs may share.
    """

    def __init__(self, own: OnceFile, shared: OnceFile) -> None:
        self._own = own
        self._shared = shared
        self._teardowns: dict[str, Callable[[Any], Any]] = {}

    def __call__(self, key: str, factory: Callable[[], Any], teardown: Callable[[Any], Any] | None = None) -> Any:
        """Return a copy of the value of a key, computed by the first worker that asks. Blocks until it is stored.

        A waiting worker does not hold the lock of ``shared_context``. If the factory raises, or its worker is killed,
        the next worker that asks tries again. The factory may call this for other keys, in the same order everywhere.

        Args:
            key: the value's name, the same in all workers.
            factory: returns a value that JSON can hold; it may be ``async``, and then runs in its own event loop.
            teardown: called with the value once, when all workers have finished their tests and finalised their
                fixtures, or immediately if JSON cannot hold the value. It may be ``async``. A value with a teardown is
                never shared with other runs.

        Raises:
            Exception: what the factory raised.
            UnserializableValueError: JSON cannot hold the value, or the key is not a string.
            ReentrantTransactionError: the factory asked for its own key.
        """
        if not teardown:
            return self._shared.value(key, factory)
        self._own.check(key, factory)
        try:
            return self._own.value(key, factory, teardown)
        finally:
            self._teardowns.setdefault(key, teardown)  # after those of nested calls; even if interrupted

    @property
    def has_teardowns(self) -> bool:
        """Whether there is anything to tear down."""
        return bool(self._teardowns)

    def finish(self) -> list[BaseException]:
        """Tear down the values that no other worker has, last one first; return what the teardowns raised."""
        failures: list[BaseException] = []
        while self._teardowns:
            try:
                self._own.discard(*self._teardowns.popitem())
            except BaseException as error:  # noqa: BLE001 - pytest.fail() as well; reported at the end of the run
                failures.append(error)
        return failures


_COMPUTE_ONCE = pytest.StashKey[ComputeOnce]()
_FAILURES = pytest.StashKey[list[str]]()
_OUTPUT: Final = "persistent_context_failures"


@pytest.fixture(scope="session")
def shared_context(pytestconfig: pytest.Config) -> SyncPersistentContext:
    """A SyncPersistentContext on one state for all workers of this run, loaded when a worker first requests it."""
    from persistent_context import SyncPersistentContext  # noqa: PLC0415

    context = SyncPersistentContext(_shared_place(pytestconfig), durable=False)
    _load(context.load, pytestconfig)
    return context


@pytest.fixture
def async_shared_context(pytestconfig: pytest.Config) -> PersistentContext:
    """A loaded PersistentContext on the state of shared_context: one for each test and its event loop."""
    import asyncio  # noqa: PLC0415
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415

    from persistent_context import PersistentContext  # noqa: PLC0415

    context = PersistentContext(_shared_place(pytestconfig), durable=False)
    with ThreadPoolExecutor(1) as executor:  # a loop may run in this thread, or be set for it
        _load(executor.submit(asyncio.run, context.load()).result, pytestconfig)
    return context


@pytest.fixture(scope="session")
def compute_once(pytestconfig: pytest.Config) -> ComputeOnce:
    """``compute_once(key, factory, teardown=None)``: a value that one worker computes for all."""
    from persistent_context._api.once_file import OnceFile  # noqa: PLC0415

    own = OnceFile(_folder(pytestconfig) / "once.json")
    place = _once_place(pytestconfig)
    shared = own if place is None else OnceFile(place)
    if isinstance(place, str):
        _load(shared.load, pytestconfig)  # reports a wrong password here, rather than in each test
    pytestconfig.stash[_COMPUTE_ONCE] = ComputeOnce(own, shared)
    return pytestconfig.stash[_COMPUTE_ONCE]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option to share the state with other runs."""
    parser.getgroup("persistent_context").addoption(
        "--shared-context",
        dest=_OPTION,
        metavar="FILE",
        help="share the state of the fixture shared_context, and what compute_once computes, with other runs, in this "
        "file, or at this etcd:// URL",
    )
    parser.addini(
        _OPTION,
        "same as --shared-context; a file is relative to the directory of this configuration file",
        default="",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Refuse a URL that is not valid, or that needs a package that is missing, before anything runs."""
    given = _given_place(config)
    if not isinstance(given, str):
        return
    from persistent_context._stores.factory import locate  # noqa: PLC0415

    try:
        locate(given)
    except (ValueError, ModuleNotFoundError) as error:
        msg = f"--shared-context: {error}"
        raise pytest.UsageError(msg) from None


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Record, in the controller, that a worker is about to start."""
    present = _workers(node.config)
    present.mkdir(parents=True, exist_ok=True)
    (present / node.gateway.id).touch()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Record, in the controller, that a worker is gone, and what it failed to tear down.

    The file of a killed worker is still there; it is renamed, and its modification time says when.
    """
    with contextlib.suppress(FileNotFoundError):
        present = _workers(node.config) / node.gateway.id
        os.utime(present)
        present.rename(present.with_suffix(_CRASHED))
    output: dict[str, Any] = getattr(node, "workeroutput", {})
    _failures(node.config).extend(output.get(_OUTPUT, ()))


@pytest.hookimpl(wrapper=True, trylast=True)  # after pytest finalises what an interruption left
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    """Tear down computed values when the last worker has finished its tests; a failure there fails the run."""
    try:
        return (yield)
    finally:
        _finish(session)


def _finish(session: pytest.Session) -> None:
    config = session.config
    worker = _worker(config)
    function = config.stash.get(_COMPUTE_ONCE, None)
    with _interruptions_noted(worker) as interruptions:
        if worker:
            (_workers(config) / worker).unlink(missing_ok=True)
        if function is not None and function.has_teardowns:
            while worker and _others_run(config) and not _long_ago(interruptions):
                time.sleep(_POLL_SECONDS)
            _failures(config).extend("".join(traceback.format_exception(error)) for error in function.finish())
    if worker:
        config.workeroutput[_OUTPUT] = _failures(config)  # type: ignore[attr-defined]
    elif _failures(config) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@contextlib.contextmanager
def _interruptions_noted(worker: str | None) -> Iterator[list[float]]:
    """Record interruptions of a worker and carry on: the controller that interrupts it kills it if it hangs."""
    moments: list[float] = []
    if worker is None or threading.current_thread() is not threading.main_thread():
        yield moments
        return
    before = signal.signal(signal.SIGINT, lambda *_: moments.append(time.monotonic()))
    try:
        yield moments
    finally:
        signal.signal(signal.SIGINT, before)


def _long_ago(moments: list[float]) -> bool:
    return bool(moments) and time.monotonic() > moments[0] + _INTERRUPTED_WITHIN_SECONDS


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Report what failed to be torn down."""
    for failure in _failures(config):
        terminalreporter.section("ERROR in a teardown of compute_once", red=True)
        terminalreporter.write(failure)


def _failures(config: pytest.Config) -> list[str]:
    return config.stash.setdefault(_FAILURES, [])


def _worker(config: pytest.Config) -> str | None:
    """Return the pytest-xdist worker ID of this process, or None."""
    workerinput: dict[str, Any] | None = getattr(config, "workerinput", None)
    return None if workerinput is None else workerinput["workerid"]


def _folder(config: pytest.Config) -> Path:
    """Return the folder that the workers of this run share."""
    own: Path = config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]  # noqa: SLF001 - no hook gets it
    return (own.parent if _worker(config) else own) / "shared-context"


def _workers(config: pytest.Config) -> Path:
    """Return the folder with a file for each worker that has not finished its tests."""
    return _folder(config) / "workers"


def _others_run(config: pytest.Config) -> bool:
    """Return whether a worker still has tests to run, or is about to be replaced by one that has."""
    just_now = time.time() - _REPLACED_WITHIN_SECONDS
    return any(file.suffix != _CRASHED or file.stat().st_mtime > just_now for file in _workers(config).glob("*"))


def _given_place(config: pytest.Config) -> Path | str | None:
    """Return the file, or the URL as it was given, to share with other runs, if there is one."""
    given: str = config.getoption(_OPTION) or config.getini(_OPTION)
    if not given or given.startswith(_SCHEMES):
        return given or None
    if config.getoption(_OPTION):
        return config.invocation_params.dir.joinpath(given)
    return (config.inipath.parent if config.inipath else config.rootpath).joinpath(given)


def _shared_place(config: pytest.Config) -> Path | str:
    return _given_place(config) or _folder(config) / "context.json"


def _once_place(config: pytest.Config) -> str | Path | None:
    """Return where to keep the values that other runs share: beside their file or, for permissions, below their URL."""
    given = _given_place(config)
    if isinstance(given, str):
        url, question, options = given.partition("?")
        return f"{url.rstrip('/')}/once{question}{options}"
    return given and given.with_name(f"{given.name}.once.json")


def _load(load: Callable[[], Any], config: pytest.Config) -> None:
    """Load a context. At a URL, report only the error: pytest would show the arguments of calls, such as passwords."""
    from persistent_context import PersistentContextError  # noqa: PLC0415

    try:
        load()
    except (OSError, PersistentContextError) as error:
        if not isinstance(_given_place(config), str):
            raise
        message = str(error)
    else:
        return
    pytest.fail(message, pytrace=False)  # out of the block, so that it does not refer to the error
