"""Carries out commands in forks of one process that has imported what they import: most of their time is importing."""

import contextlib
import gc
import importlib
import json
import os
import runpy
import socket
import sys

USED = ("persistent_context._cli.main", "persistent_context._stores.etcd.store", "typer._adapters", "typer.rich_utils")


def next_request(requests):
    """Wait for a request, and return it in a fork of this process; return None, in this process, after the last."""
    while True:
        message, streams, _flags, _address = socket.recv_fds(requests, 1 << 20, 2)
        if not message:
            return None
        if not (pid := os.fork()):
            for number, stream in enumerate(streams, start=1):
                os.dup2(stream, number)
                os.close(stream)
            return json.loads(message)
        for stream in streams:
            os.close(stream)
        _pid, status = os.waitpid(pid, 0)
        requests.send(b"%d" % os.waitstatus_to_exitcode(status))


def main(socket_descriptor):
    """Import all, then serve requests until the other end of the socket is closed."""
    for name in USED:
        with contextlib.suppress(ImportError):  # a command without its extra says so
            importlib.import_module(name)
    gc.freeze()
    with socket.socket(fileno=socket_descriptor) as requests:
        request = next_request(requests)
    if request is not None:
        os.chdir(request["directory"])
        os.environ.clear()
        os.environ.update(request["environment"])
        sys.argv[1:] = request["arguments"]
        runpy.run_module("persistent_context", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
