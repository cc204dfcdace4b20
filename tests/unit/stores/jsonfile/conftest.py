"""What tests of the store in a JSON file share."""

import os
import sys

import pytest


@pytest.fixture
def synced(monkeypatch):
    """The names of the files and directories that this process syncs, in their order."""
    if sys.platform != "linux":
        pytest.skip("looks descriptors up in /proc: run on Linux")
    names, real = [], os.fsync

    def sync(fd):
        real(fd)
        names.append(os.readlink(f"/proc/self/fd/{fd}"))

    monkeypatch.setattr(os, "fsync", sync)
    return names
