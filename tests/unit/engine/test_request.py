"""A call and its caller: every call ends, with its own outcome, and the lock is released."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import filelock
import pytest

from persistent_context import LockTimeoutError, PersistentContext, SyncPersistentContext


def stored(path):
    """Return what any other program reads in the file."""
    return json.loads(path.read_text(encoding="utf-8"))


def assert_goes_on(face, path, ctx):
    """Check that the lock is free, and that both this context and another one work."""
    with filelock.FileLock(f"{path}.lock", timeout=5):
        pass
    probe = face.do(ctx.incr, "probe")

    assert probe + 1 == SyncPersistentContext(path, lock_timeout=5).incr("probe")
    assert probe + 1 == stored(path)["probe"]


def raising(error):
    """Return a function for ``mutate`` that raises."""

    def fn(value):
        raise error

    return fn


class ReadOnlyName(OSError):
    """An ``OSError`` whose file name cannot be set."""

    @property
    def filename(self):
        return None


class UncopyableError(Exception):
    """An error that ``copy`` and ``pickle`` cannot handle."""

    def __init__(self, one, two):
        super().__init__("no copy of this")

    def __reduce__(self):
        raise TypeError("no copy of this")


class SlottedError(Exception):
    """An error that accepts neither attributes nor notes."""

    __slots__ = ()

    def __setattr__(self, name, value):
        raise AttributeError(name)


ERRORS = {
    "text": lambda: OSError("text"),
    "timeout": lambda: TimeoutError("text"),
    "errno": lambda: FileNotFoundError(errno.ENOENT, "no such thing"),
    "with a name": lambda: PermissionError(errno.EACCES, "not that one", "/etc/shadow"),
    "read-only name": lambda: ReadOnlyName("text"),
    "uncopyable": lambda: UncopyableError(1, 2),
    "no attributes": lambda: SlottedError("text"),
    "memory": lambda: MemoryError("text"),
    "system exit": lambda: SystemExit(3),
    "generator exit": lambda: GeneratorExit("text"),
    "group": lambda: ExceptionGroup("some", [OSError("text"), ValueError("text")]),
}


class Unequal(list):
    """A list that cannot be compared."""

    def __eq__(self, other):
        raise ArithmeticError

    __hash__ = None


class UnequalNumber(int):
    """A number that cannot be compared."""

    def __eq__(self, other):
        raise ArithmeticError

    __hash__ = None


class UnequalThing:
    """An object that cannot be compared and that JSON cannot hold."""

    def __eq__(self, other):
        raise ArithmeticError

    __hash__ = None


class Raising(logging.Handler):
    """A handler that raises the given error."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def emit(self, record):
        raise self.error


NO_MEMORY = """
import asyncio, fcntl, faulthandler, json, os, sys, threading
import filelock

path, face, call = sys.argv[1:4]
NAMES = ["open", "close", "fsync", "stat", "fstat", "lstat", "write", "pwrite", "read", "pread", "ftruncate", "lseek",
         "unlink", "utime", "fchmod", "replace", "rename"]
seen, fail_at, replaced, armed = 0, 0, False, False

def wrap(real, name):
    def wrapped(*args, **kwargs):
        global seen, replaced
        if armed and replaced:
            seen += 1
            if seen == fail_at:
                if name == "close":
                    real(*args, **kwargs)
                raise MemoryError(name)
        result = real(*args, **kwargs)
        if armed and name in ("replace", "rename"):
            replaced = True
        return result
    return wrapped

for name in NAMES:
    setattr(os, name, wrap(getattr(os, name), name))
fcntl.flock = wrap(fcntl.flock, "flock")

from persistent_context import PersistentContext, PersistentContextError, SyncPersistentContext

def blocking(path):
    ctx = SyncPersistentContext(path, lock_timeout=3)
    if call == "transaction":
        with ctx.transaction() as tx:
            tx["n"] = 1
    elif call == "incr":
        ctx.incr("n")
    else:
        ctx["n"] = 1
        ctx.save()

async def on_a_loop(path):
    ctx = PersistentContext(path, lock_timeout=3)
    if call == "transaction":
        async with ctx.transaction() as tx:
            tx["n"] = 1
    elif call == "incr":
        await ctx.incr("n")
    else:
        ctx["n"] = 1
        await ctx.save()

def one(path):
    global armed
    armed = True
    try:
        asyncio.run(on_a_loop(path)) if face == "async" else blocking(path)
    except (MemoryError, OSError, PersistentContextError):
        pass
    finally:
        armed = False
    with open(path) as file:
        assert json.load(file) == {"n": 1}
    with filelock.FileLock(path + ".lock", timeout=3):
        pass
    assert SyncPersistentContext(path, lock_timeout=3).incr("probe") == 1

while fail_at == 0 or seen >= fail_at:
    fail_at += 1
    seen, replaced = 0, False
    print(f"at {fail_at}", flush=True)
    one(f"{path}-{fail_at}")
assert fail_at > 3, fail_at
print("ended")
"""


TURNED = """
import contextlib, json, os, signal, sys, threading, time
import filelock
from persistent_context import LockTimeoutError, SyncPersistentContext

class SoftTimeLimit(Exception):
    pass

def soft_time_limit(*_):
    raise SoftTimeLimit

signal.signal(signal.SIGALRM, soft_time_limit)
for number in range(60):
    directory = os.path.join(sys.argv[1], str(number))
    os.mkdir(directory)
    link, old, new, other = (os.path.join(directory, name) for name in ("link", "old", "new", "other"))
    for one in (old, new):
        with open(one, "w") as file:
            file.write("{}")
    os.symlink(old, link)
    os.symlink(new, other)
    first, second = (filelock.FileLock(one + ".lock", thread_local=False) for one in (old, new))
    with first, second:
        def turn():
            time.sleep(0.01)
            os.replace(other, link)
            first.release()
        thread = threading.Thread(target=turn)
        thread.start()
        signal.setitimer(signal.ITIMER_REAL, 0.01 + number * 0.0001)
        try:
            SyncPersistentContext(link, lock_timeout=10, durable=False).incr("n")
            raise AssertionError("the call returned")
        except SoftTimeLimit:
            pass
        thread.join()
        second.release()
    SyncPersistentContext(link, lock_timeout=3, durable=False).incr("probe")
    with open(old) as left, open(new) as right:
        assert json.load(left) == {}, number
        assert json.load(right) == {"probe": 1}, number
print("no effect")
"""


@pytest.mark.timeout(15)  # these tests are about hangs
class TestErrorsOfTheCallersOwnFunction:
    @pytest.mark.parametrize("name", ERRORS)
    def test_an_error_of_mutates_function_is_passed_on_untouched(self, path, face, name):
        """An exception of ``mutate``'s function reaches the caller as the same object, and later calls work."""
        error, twin = ERRORS[name](), ERRORS[name]()
        ctx = face.cls(path, lock_timeout=5)
        with pytest.raises(type(error)) as caught:
            face.do(ctx.mutate, "n", raising(error))

        assert (str(twin), repr(twin)) == (str(caught.value), repr(caught.value))
        assert getattr(twin, "filename", None) is getattr(caught.value, "filename", None)
        assert caught.value is error
        assert_goes_on(face, path, ctx)

    @pytest.mark.parametrize("name", ERRORS)
    async def test_it_fails_no_other_call_of_its_batch(self, path, name):
        """The calls that share a cycle with one whose function raises all succeed."""
        ctx = PersistentContext(path, lock_timeout=5)
        error = ERRORS[name]()

        async def mutate():
            with pytest.raises(type(error)):
                await ctx.mutate("n", raising(error))
            return "raised"

        with filelock.FileLock(f"{path}.lock"):
            calls = [asyncio.create_task(call) for call in (ctx.incr("a"), mutate(), ctx.incr("b"), ctx.save())]
            await asyncio.sleep(0.05)
        async with asyncio.timeout(5):
            results = await asyncio.gather(*calls)

        assert [1, "raised", 1, None] == results
        assert {"a": 1, "b": 1} == stored(path)
        assert 1 == await ctx.incr("probe")

    @pytest.mark.parametrize("name", ["text", "timeout", "read-only name", "uncopyable", "no attributes"])
    def test_an_error_of_a_resolver_is_passed_on_untouched(self, path, face, name):
        """The same holds for an exception of a function given as ``on_conflict``."""
        error, twin = ERRORS[name](), ERRORS[name]()

        def resolve(key, base, mine, theirs):
            raise error

        ctx = face.open(path, on_conflict=resolve, lock_timeout=5)
        ctx["k"] = 1
        SyncPersistentContext(path).add("k", 2)
        with pytest.raises(type(error)) as caught:
            face.do(ctx.save)

        assert (str(twin), repr(twin)) == (str(caught.value), repr(caught.value))
        assert {"k": 2} == stored(path)
        assert {"k"} == ctx.unsaved_keys()
        del ctx["k"]
        face.do(ctx.load)
        assert_goes_on(face, path, ctx)

    def test_stop_iteration(self, path, face):
        """A blocking call raises ``StopIteration`` unchanged; a coroutine, which cannot, raises it as the cause."""
        ctx = face.cls(path, lock_timeout=5)
        error = StopIteration(7)
        with pytest.raises(StopIteration if face.name == "sync" else RuntimeError) as caught:
            face.do(ctx.mutate, "n", raising(error))

        assert error in (caught.value, caught.value.__cause__)
        assert_goes_on(face, path, ctx)


@pytest.mark.timeout(15)  # these tests are about hangs
class TestAValueThatCannotBeCompared:
    @pytest.mark.parametrize("make", [Unequal, UnequalNumber, UnequalThing])
    async def test_set_while_a_call_is_in_flight(self, path, make):
        """Whatever is set in memory while calls are in flight, those calls and later ones end."""
        ctx = await PersistentContext.create(path, lock_timeout=5)
        ctx["k"] = 1
        await ctx.save()
        with filelock.FileLock(f"{path}.lock"):
            calls = [asyncio.create_task(call) for call in (ctx.incr("k"), ctx.save(), ctx.incr("n"))]
            await asyncio.sleep(0.05)
            ctx["k"] = make()
        async with asyncio.timeout(6):
            await asyncio.gather(*calls, return_exceptions=True)
            assert ctx is not None
            ctx["k"] = 5
            await ctx.save()
            probe = await ctx.incr("probe")

        assert (1, 5, 1) == (probe, stored(path)["k"], stored(path)["n"])

    @pytest.mark.parametrize("make", [Unequal, UnequalNumber, UnequalThing])
    def test_set_while_a_blocking_call_is_in_flight(self, path, make):
        """The same holds for a context that threads share."""
        ctx = SyncPersistentContext.create(path, lock_timeout=5)
        ctx["k"] = 1
        ctx.save()

        def fn(value):
            ctx["k"] = make()
            return value + 1

        with ThreadPoolExecutor(2) as pool:
            calls = [pool.submit(ctx.mutate, "k", fn), pool.submit(ctx.incr, "n")]
            for call in calls:
                with suppress(ArithmeticError):
                    call.result(6)
        ctx["k"] = 5
        ctx.save()

        assert (5, 1) == (stored(path)["k"], stored(path)["n"])
        assert 1 == ctx.incr("probe")


@pytest.mark.timeout(15)  # these tests are about hangs
@pytest.mark.usefixtures("nobody_repairs_it")
class TestALoggingHandlerThatRaises:
    @pytest.mark.parametrize("name", ["uncopyable", "no attributes", "read-only name", "text", "memory"])
    @pytest.mark.parametrize("call", ["incr", "save", "transaction", "load"])
    def test_every_call_ends(self, path, face, call, name):
        """A call during which a logging handler raises ends, with or without that error, and later calls work."""
        path.write_text("{ corrupt")
        error = ERRORS[name]()
        handler = Raising(error)
        ctx = face.cls(path, lock_timeout=5)
        ctx["k"] = 1
        logging.getLogger().addHandler(handler)
        try:
            with suppress(type(error)):
                if call == "transaction":
                    face.inside(ctx.transaction, lambda tx: tx.update(n=1))
                elif call == "incr":
                    face.do(ctx.incr, "n")
                else:
                    face.do(getattr(ctx, call))
        finally:
            logging.getLogger().removeHandler(handler)

        assert_goes_on(face, path, ctx)

    @pytest.mark.parametrize("name", ["uncopyable", "no attributes"])
    async def test_all_calls_of_a_batch_end(self, path, name):
        """The same holds for calls that share a cycle."""
        path.write_text("{ corrupt")
        error = ERRORS[name]()
        handler = Raising(error)
        ctx = PersistentContext(path, lock_timeout=5)
        with filelock.FileLock(f"{path}.lock"):
            calls = [asyncio.create_task(ctx.incr("n")) for _ in range(3)]
            await asyncio.sleep(0.05)
            logging.getLogger().addHandler(handler)
        try:
            async with asyncio.timeout(6):
                await asyncio.gather(*calls, return_exceptions=True)
        finally:
            logging.getLogger().removeHandler(handler)

        assert 1 == await ctx.incr("probe")
        assert 1 == stored(path)["probe"]


@pytest.mark.timeout(15)  # these tests are about hangs
class TestNoMemoryAtTheEndOfACycle:
    @pytest.mark.parametrize("call", ["incr", "save", "transaction"])
    def test_the_call_ends_and_the_lock_comes_free(self, path, face, run, call):
        """Whichever system call after the replacement raises, the call ends and the lock is released."""
        assert "ended" == run(NO_MEMORY, path, face.name, call)[-1]


@pytest.mark.timeout(60)  # these tests are about hangs, but have many rounds
class TestWithdrawnWhileTheLinkIsTurned:
    """A call waits for one file, its link is turned to another, and it is withdrawn on its way there."""

    @staticmethod
    def two_files(tmp_path, number):
        directory = tmp_path / str(number)
        directory.mkdir()
        link, old, new = (directory / name for name in ("link.json", "old.json", "new.json"))
        for one in (old, new):
            one.write_text("{}")
        link.symlink_to(old)
        return link, old, new

    @staticmethod
    def turn(link, new):
        other = link.with_name("other")
        other.symlink_to(new)
        os.replace(other, link)

    @pytest.mark.parametrize("how", ["cancelled", "timed out"])
    async def test_it_has_no_effect(self, tmp_path, how):
        """A call withdrawn at any moment of its move has no effect on either file, and other calls work."""
        for number in range(120):
            link, old, new = self.two_files(tmp_path, number)
            ctx = PersistentContext(
                link, lock_timeout=30 if how == "cancelled" else 0.02 + number * 0.0002, durable=False
            )
            first, second = (filelock.FileLock(f"{one}.lock", thread_local=False) for one in (old, new))
            with first, second:
                call = asyncio.create_task(ctx.incr("n"))
                await asyncio.sleep(0.02)
                self.turn(link, new)
                first.release()
                for _ in range(number * number // 4):
                    await asyncio.sleep(0)
                if how == "cancelled":
                    call.cancel()
                await asyncio.wait({call}, timeout=5)
                assert call.done(), number
                assert call.cancelled() or isinstance(call.exception(), LockTimeoutError)
                second.release()
            later = PersistentContext(link, lock_timeout=5, durable=False)
            await later.incr("probe")
            await later.incr("probe")

            assert ({}, {"probe": 2}) == (stored(old), stored(new)), number

    async def test_it_has_no_effect_if_it_is_cancelled_while_its_file_is_looked_up(self, tmp_path):
        """A call that is withdrawn just before it is moved to the other file stays withdrawn."""
        link, old, new = self.two_files(tmp_path, 0)
        ctx = await PersistentContext.create(link)
        queue, loop, over = await asyncio.to_thread(ctx._link.find), asyncio.get_running_loop(), threading.Event()
        look_up = queue._queue_of

        def cancelled_meanwhile(place):
            found = look_up(place)
            if found is not queue:
                loop.call_soon_threadsafe(call.cancel)
                over.wait(60)
            return found

        queue._queue_of = cancelled_meanwhile
        with filelock.FileLock(f"{old}.lock", thread_local=False):
            call = asyncio.create_task(ctx.incr("n"))
            call.add_done_callback(lambda _: over.set())
            while not queue._waiting:
                await asyncio.sleep(0.001)
            self.turn(link, new)
        await asyncio.wait({call}, timeout=60)
        for _ in range(2):
            await PersistentContext(link).incr("probe")

        assert (True, {}, {"probe": 2}) == (call.cancelled(), stored(old), stored(new))

    @pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs signal.setitimer: run on Unix")
    def test_a_blocking_call_has_no_effect(self, tmp_path, run):
        """The same holds for a blocking call that is ended by a signal handler's exception."""
        assert ["no effect"] == run(TURNED, tmp_path)
