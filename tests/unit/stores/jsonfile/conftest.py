"""Fixtures for tests of the store in a JSON file."""

import os
import sys
import threading

import pytest

from persistent_context._stores.jsonfile.lock import FileLock


@pytest.fixture
def synced(monkeypatch):
    """The names of the files and directories that this process syncs, in order."""
    if sys.platform != "linux":
        pytest.skip("looks descriptors up in /proc: run on Linux")
    names, real = [], os.fsync

    def sync(fd):
        real(fd)
        names.append(os.readlink(f"/proc/self/fd/{fd}"))

    monkeypatch.setattr(os, "fsync", sync)
    return names


@pytest.fixture
def lock(path):
    """The lock of the test's file."""
    one = FileLock(f"{path}.lock", str(path))
    yield one
    one._files.close_all()


@pytest.fixture
def wait_for(lock):
    """Make a thread wait for the lock; return the thread, and the list to which it appends the outcome."""
    started = []

    def wait():
        ended = []

        def acquire():
            try:
                held = lock.acquire("test", wait=True)
                wait.granted.append(held)
                ended.append(held is not None)
            except OSError as error:
                ended.append(error.errno)

        before = lock._wait
        thread = threading.Thread(target=acquire)
        started.append(thread)
        thread.start()
        tick = threading.Event()
        while lock._wait is before and thread.is_alive():
            tick.wait(0.001)
        return thread, ended

    wait.granted = []
    yield wait
    for thread in started:
        thread.join(60)
        assert not thread.is_alive()
