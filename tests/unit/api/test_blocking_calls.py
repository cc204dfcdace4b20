"""Calls that block their thread: a call interrupted by an asynchronous exception leaves nothing behind."""

import ctypes
import threading

import pytest

from persistent_context import SyncPersistentContext
from persistent_context._api.blocking_calls import BlockingCalls


class StoppedError(Exception):
    """An exception raised in the midst of a call."""


class TestAnExceptionThatComesWithTheTurn:
    def test_a_transaction_that_has_just_been_granted_is_given_up(self, path, monkeypatch):
        """The transaction never begins, and the lock is free at once, though the error's traceback keeps it alive."""
        ctx, caller, deliver = SyncPersistentContext(path), threading.get_ident(), BlockingCalls._deliver

        def stop(calls, requests):
            monkeypatch.undo()
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(caller), ctypes.py_object(StoppedError))
            deliver(calls, requests)

        monkeypatch.setattr(BlockingCalls, "_deliver", stop)
        with pytest.raises(StoppedError) as caught, ctx.transaction():
            pytest.fail("the transaction has begun")

        assert 1 == SyncPersistentContext(path, lock_timeout=5).incr("n")
        assert caught.tb is not None
