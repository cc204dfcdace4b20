"""The guards of memories, and how they are released while a signal handler waits."""

import sys
import threading

import pytest

from persistent_context._engine import guard as _guard
from persistent_context._engine.guard import call_released, is_owned, new_guard


class StruckError(Exception):
    """An exception raised by a signal handler."""


def strike(at):
    """Return a trace function that raises after the given number of lines and returns of the module."""
    moments = iter(range(at + 1))

    def trace(frame, event, argument):
        if frame.f_code.co_filename != _guard.__file__:
            return None
        if event in ("line", "return") and next(moments, None) == at:
            raise StruckError
        return trace

    return trace


def is_free(guard):
    """Whether another thread could acquire the guard."""
    found = []
    thread = threading.Thread(target=lambda: found.append(guard.acquire(blocking=False) and guard.release() is None))
    thread.start()
    thread.join()
    return found[0]


class TestCallingReleased:
    def test_others_may_have_the_guards_during_the_call(self):
        """All guards that the thread holds are free during the call, and are then held as many times as before."""
        one, other, unheld = new_guard(), new_guard(), new_guard()
        with one, one, other:
            during = call_released(lambda: [is_free(guard) for guard in (one, other, unheld)])
            after = [is_owned(guard) for guard in (one, other, unheld)]

        assert ([True, True, True], [True, True, False]) == (during, after)
        assert is_free(one)

    def test_its_error_is_raised_with_the_guards_held(self):
        """The function's exception is raised after the guards are reacquired."""
        guard = new_guard()
        with guard:
            with pytest.raises(StruckError):
                call_released(self._fail)

            assert is_owned(guard)

    def _fail(self):
        raise StruckError

    def test_an_exception_at_any_moment_leaves_them_held(self, monkeypatch):
        """Whenever a signal handler raises, the thread ends up holding each of its guards once."""
        monkeypatch.setattr(_guard, "_guards", {})  # each guard of other tests' contexts would add moments
        struck = 0
        for at in range(100):
            guard = new_guard()
            with guard:
                before = sys.gettrace()
                sys.settrace(strike(at))
                try:
                    call_released(int)
                except StruckError:
                    struck += 1
                finally:
                    sys.settrace(before)

                assert is_owned(guard), f"struck at moment {at}"
            assert is_free(guard)

        assert 5 < struck < 100
