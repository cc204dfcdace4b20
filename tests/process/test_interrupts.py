"""Signal handlers that run while a blocking context uses its memory or waits: nothing is lost or held up."""

import gc
import json
import os
import signal
import sys
import threading
import time

import filelock
import pytest

from persistent_context import ReentrantTransactionError, SyncPersistentContext, _flag
from persistent_context._engine.turn import Turn
from persistent_context._flag import Flag
from persistent_context._model import grafting, keys, live, memory
from persistent_context._model import values as _values

MEMORY = {module.__file__ for module in (grafting, keys, live, memory)}
ON_POSIX = pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals on Windows")


def stored(path):
    """Return what any other program reads in the file."""
    return json.loads(path.read_text(encoding="utf-8"))


@ON_POSIX
class TestInterrupts:
    def test_what_a_handler_raises_while_a_value_is_encoded_goes_on(self, path, monkeypatch):
        """The handler's exception propagates, and is not taken for a value that JSON cannot hold."""

        class AlarmError(Exception):
            pass

        def handler(number, frame):
            raise AlarmError

        real = _values.deeper_than

        def interrupted(limit, text):
            monkeypatch.undo()
            os.kill(os.getpid(), signal.SIGUSR1)
            return real(limit, text)

        ctx = SyncPersistentContext(path, durable=False)
        ctx["value"] = ["fine"]
        before = signal.signal(signal.SIGUSR1, handler)
        monkeypatch.setattr(_values, "deeper_than", interrupted)
        try:
            with pytest.raises(AlarmError):
                ctx.save()
        finally:
            signal.signal(signal.SIGUSR1, before)

        assert {"value"} == ctx.unsaved_keys()

    @pytest.mark.parametrize("whose", ["the same", "another"])
    def test_one_in_the_midst_of_memory_lets_another_thread_finish(self, path, whose):
        """A handler that interrupts the use of memory and saves can wait for a transaction that needs it, too."""
        ctx = SyncPersistentContext(path, lock_timeout=20)
        saved = ctx if whose == "the same" else SyncPersistentContext(path, lock_timeout=20)
        granted, go_on = threading.Event(), threading.Event()
        finished = []

        def transact():
            with ctx.transaction() as tx:
                granted.set()
                go_on.wait(20)
                tx["theirs"] = 1  # uses the memory of the context
            finished.append("transaction")

        def handler(number, frame):
            go_on.set()
            saved.save()
            finished.append("save")

        before = signal.signal(signal.SIGUSR1, handler)
        other = threading.Thread(target=transact)
        try:
            other.start()
            granted.wait(20)
            with ctx._memory.locked():  # as in any method that uses memory
                os.kill(os.getpid(), signal.SIGUSR1)
                while "save" not in finished:
                    time.sleep(0.01)
        finally:
            signal.signal(signal.SIGUSR1, before)
            other.join(20)

        assert ({"transaction", "save"}, {"theirs": 1}) == ({*finished}, stored(path))

    def test_a_set_that_a_call_interrupts_comes_after_it(self, path, monkeypatch):
        """A key that a handler increments while it is being set gets the value set, even if that is unchanged."""
        path.write_text('{"n": 1}', encoding="utf-8")
        ctx = SyncPersistentContext.create(path)
        place = type(ctx._data)._place

        def interrupted(live, key, value):
            monkeypatch.undo()
            os.kill(os.getpid(), signal.SIGUSR1)
            place(live, key, value)

        before = signal.signal(signal.SIGUSR1, lambda *_: ctx.incr("n"))
        monkeypatch.setattr(type(ctx._data), "_place", interrupted)
        try:
            ctx["n"] = 1
        finally:
            signal.signal(signal.SIGUSR1, before)

        assert (1, {"n"}, {"n": 2}) == (ctx["n"], ctx.unsaved_keys(), stored(path))

    def test_a_second_one_at_the_end_of_a_transaction(self, path, monkeypatch):
        """A second Ctrl-C at the end of a transaction, while the first one is waited out, still ends it."""
        ctx = SyncPersistentContext(path, lock_timeout=20)
        released = threading.Event()
        strikes = []

        def handler(number, frame):
            strikes.append(number)
            raise KeyboardInterrupt

        def striking(turn, request):
            if len(strikes) < 2:
                os.kill(os.getpid(), signal.SIGUSR1)
            end(turn, request)
            released.set()

        end = Turn.end
        before = signal.signal(signal.SIGUSR1, handler)
        try:
            with pytest.raises(KeyboardInterrupt), ctx.transaction() as tx:
                tx["n"] = 1
                monkeypatch.setattr(Turn, "end", striking)
            monkeypatch.undo()
            ctx.incr("other")
        finally:
            signal.signal(signal.SIGUSR1, before)

        assert (2, {"other": 1}) == (len(strikes), stored(path))

    def test_one_that_comes_as_the_end_is_entered_ends_the_transaction_with_its_traceback(self, path):
        """No code of the library runs between the body and ``__exit__``: an exception there keeps the transaction."""
        ctx = SyncPersistentContext(path, lock_timeout=20)

        def strike(frame, event, argument):
            if frame.f_code.co_name == "__exit__":
                raise KeyboardInterrupt

        try:
            with ctx.transaction() as tx:
                tx["n"] = 1
                sys.settrace(strike)
        except KeyboardInterrupt as error:
            sys.settrace(None)
            with pytest.raises(ReentrantTransactionError):
                ctx.save()
            error.__traceback__ = None
        gc.collect()  # a frame's tracing function may refer to the frame
        ctx.incr("other")

        assert {"other": 1} == stored(path)

    def test_a_watch_is_closed_in_the_midst_of_its_waking(self, path):
        """A handler that closes a watch never hangs, whatever line of its waiting and waking it interrupts."""
        found = []
        for number in range(1, 12):
            flag, lines = Flag(), []

            def trace(frame, event, argument, flag=flag, lines=lines, number=number):
                if frame.f_code.co_filename == _flag.__file__ and event == "line":
                    lines.append(None)
                    if len(lines) == number:
                        flag.set()
                return trace

            sys.settrace(trace)
            try:
                found.append([flag.wait(0.01) for _ in range(5)][-1])
            finally:
                sys.settrace(None)

        assert [True] * 11 == found

    def test_a_drain_that_is_interrupted_is_done_again(self, path, monkeypatch):
        """An exception that interrupts taking over a result leaves the result for the next use of memory."""
        ctx = SyncPersistentContext(path)
        ctx["a"] = 1
        settle, calls = type(ctx._memory)._settle, []

        def interrupted(self, key, *others):
            calls.append(key)
            if len(calls) == 1:
                raise InterruptedError
            settle(self, key, *others)

        monkeypatch.setattr(type(ctx._memory), "_settle", interrupted)
        with pytest.raises(InterruptedError):
            ctx.save()

        assert (set(), {"a": 1}) == (ctx.unsaved_keys(), stored(path))


class StruckError(Exception):
    """Raised between two lines, as a signal handler does."""


def is_struck(function, moment):
    """Call a function, and raise an exception before a line of memory's code; return whether that line was reached."""
    lines = iter(range(moment + 1))

    def strike(frame, event, argument):
        if frame.f_code.co_filename in MEMORY and event == "line" and next(lines, None) == moment:
            raise StruckError
        return strike

    before = sys.gettrace()
    sys.settrace(strike)
    try:
        function()
    except StruckError:
        return True
    finally:
        sys.settrace(before)
    return False


class TestTakingOver:
    """An exception at any moment of a call that takes over what others wrote: the next save still tells it apart."""

    @pytest.mark.parametrize(("call", "is_changed"), [("refresh", False), ("save", True), ("append", True)])
    def test_nothing_is_lost_or_doubled(self, path, call, is_changed):
        """Neither what others appended nor what is appended here afterwards."""
        moment, struck = 0, True
        while struck:
            path.write_text('{"v": {"p": [{"n": 1}], "q": [[]], "z": 0}, "l": [{"n": 1}]}', encoding="utf-8")
            ctx, other = (SyncPersistentContext.create(path, durable=False) for _ in range(2))
            value, items, calls = ctx["v"], ctx["l"], []
            with other.transaction() as tx:
                tx["v"]["p"].append("theirs")
                tx["v"]["q"].append("theirs")
                tx["l"].append("theirs")
            if is_changed:
                value["z"] = 1
            arguments = ("l", "call") if call == "append" else ()
            struck = is_struck(lambda: calls.append(getattr(ctx, call)(*arguments)), moment)  # noqa: B023
            value["p"].append("mine")
            items.append("mine")
            ctx.save()

            found = stored(path)
            assert found == dict(ctx), f"struck at moment {moment}"
            assert {"p": [{"n": 1}, "theirs", "mine"], "q": [[], "theirs"], "z": is_changed} == found["v"]
            assert [{"n": 1}, "theirs", "mine"] == [item for item in found["l"] if item != "call"]
            assert ("call" in found["l"]) or call != "append" or struck
            moment += 1

        assert moment > 50


class TestAWait:
    """Ctrl-C while the synchronous face waits."""

    @pytest.fixture(autouse=True)
    def interrupts(self):
        """Raise KeyboardInterrupt in the main thread on SIGINT, and set an event when that is done."""
        if threading.current_thread() is not threading.main_thread():
            pytest.skip("signals are handled in the main thread, and the tests run in another one")
        handled = threading.Event()

        def handle(number, frame):
            handled.set()
            raise KeyboardInterrupt

        before = signal.signal(signal.SIGINT, handle)
        yield handled
        signal.signal(signal.SIGINT, before)

    def test_a_call_that_waits_is_withdrawn(self, tmp_path):
        """An interrupted wait leaves nothing behind that could happen later."""
        path = tmp_path / "state.json"
        ctx = SyncPersistentContext(path)
        with filelock.FileLock(f"{path}.lock"):
            threading.Timer(0.1, os.kill, [os.getpid(), signal.SIGINT]).start()
            with pytest.raises(KeyboardInterrupt):
                ctx.incr("n")

        assert 1 == SyncPersistentContext(path, lock_timeout=60).incr("n")

    @pytest.mark.parametrize("moment", ["submit", "find_holder"])
    def test_a_call_that_does_not_wait_is_given_up(self, tmp_path, monkeypatch, moment):
        """An interrupt before a call is queued, or after it has given up, does not wait for anything."""
        path = tmp_path / "state.json"

        def interrupt(*arguments):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch, filelock.FileLock(f"{path}.lock"):
            patch.setattr(f"persistent_context._engine.queue.CommitQueue.{moment}", interrupt)
            with pytest.raises(KeyboardInterrupt):
                SyncPersistentContext(path, lock_timeout=0.05).incr("n")

        assert 1 == SyncPersistentContext(path).incr("n")

    def test_a_call_that_has_begun_is_finished_first(self, tmp_path, interrupts):
        """An interrupted call whose cycle has begun takes full effect."""
        ctx = SyncPersistentContext(tmp_path / "state.json")

        def function(value):
            os.kill(os.getpid(), signal.SIGINT)
            interrupts.wait(60)
            return "done"

        with pytest.raises(KeyboardInterrupt):
            ctx.mutate("a", function)

        assert '{\n"a": "done"\n}\n' == (tmp_path / "state.json").read_text(encoding="utf-8")

    def test_a_transaction_that_got_its_turn_gives_it_back(self, tmp_path, interrupts, monkeypatch):
        """A turn that is granted at the moment of the interrupt is given back."""
        ctx = SyncPersistentContext(tmp_path / "state.json")
        deliver = ctx._calls._deliver

        def interrupted(requests):
            monkeypatch.undo()
            os.kill(os.getpid(), signal.SIGINT)
            interrupts.wait(60)
            deliver(requests)

        monkeypatch.setattr(ctx._calls, "_deliver", interrupted)
        with pytest.raises(KeyboardInterrupt), ctx.transaction():
            pass

        assert 1 == SyncPersistentContext(tmp_path / "state.json", lock_timeout=60).incr("n")
