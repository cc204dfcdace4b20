"""An error at every system call of an operation: nothing is changed, or the call says that it cannot know."""

from __future__ import annotations

from collections.abc import Sequence

from stress.faults import strace
from stress.faults.lab import Lab
from stress.faults.model import Result, Series
from stress.faults.steps import Tracer, count_calls
from stress.faults.strace import Call
from stress.faults.trial import Trial

NO_ROOM = ("ENOSPC", "EDQUOT")
NO_ACCESS = ("EACCES", "EROFS")
ERRORS: dict[str, Sequence[str]] = {
    "openat": ("EIO", "EINTR", "EMFILE", *NO_ROOM, *NO_ACCESS),
    **dict.fromkeys(("write", "pwrite64", "writev"), ("EIO", "EINTR", *NO_ROOM)),
    "ftruncate": ("EIO", "EINTR"),
    **dict.fromkeys(("fsync", "fdatasync"), ("EIO", *NO_ROOM)),
    **dict.fromkeys(("rename", "renameat", "renameat2", "link", "linkat"), ("EIO", *NO_ROOM, *NO_ACCESS)),
    **dict.fromkeys(("mkdir", "mkdirat"), ("EIO", *NO_ROOM, *NO_ACCESS)),
    **dict.fromkeys(("unlink", "unlinkat"), ("EIO", *NO_ACCESS)),
    **dict.fromkeys(("fchmod", "fchown"), ("EIO", "EPERM", "EROFS")),
    **dict.fromkeys(("fsetxattr", "fremovexattr"), ("EIO", "ENOSPC", "EPERM")),
    "flock": ("EIO", "EINTR", "ENOLCK"),
    "close": ("EIO", "EINTR"),
    **dict.fromkeys(("read", "pread64"), ("EIO", "EINTR")),
    **dict.fromkeys(("lseek", "getdents64", "getxattr", "fgetxattr"), ("EIO",)),
    **dict.fromkeys(("fstat", "newfstatat", "statx"), ("EIO", "EACCES")),
}
LASTING: dict[str, str] = {
    **dict.fromkeys(("openat", "fsync", "fdatasync", "rename", "renameat", "renameat2"), "EIO"),
    **dict.fromkeys(("write", "pwrite64"), "ENOSPC"),
    "mkdir": "EROFS",
}
"""Errors that last: this call and all later ones of its kind fail."""
TOLD = ("write", "pwrite64", "writev", "ftruncate", "fsync", "fdatasync", "rename", "renameat", "renameat2")
"""Calls without which no change is safe: if one fails, except on the lock file, no operation may report success."""
SYNC = ("fsync", "fdatasync")
RENAMES = ("rename", "renameat", "renameat2")


class Errors:
    """Fails the calls of one operation of one face, each in turn."""

    def __init__(self, operation: str, face: str) -> None:
        """Choose what fails."""
        self.name = f"error:{operation}:{face}"
        self.about = "an error of a system call"
        self._operation = operation
        self._face = face

    def missing(self) -> tuple[str, str] | None:
        """Return what the machine lacks."""
        return strace.missing()

    def series(self, lab: Lab) -> Sequence[Series]:
        """Return one series for each call that the operation makes, and each error of it."""
        counted = count_calls(lab, self._operation, self._face)
        return [
            Series(f"{call}={error}", counted[call])
            for call in strace.CALLS
            for error in (*ERRORS.get(call, ()), *([f"{LASTING[call]}+"] if call in LASTING else []))
            if counted[call]
        ]

    def attempt(self, lab: Lab, fault: str, number: int) -> Result:
        """Fail that call, look at the file, and let the same context and another process go on."""
        call, _, error = fault.partition("=")
        lasting = "+" if error.endswith("+") else ""
        tracer = Tracer(lab, f"{call}:error={error.removesuffix('+')}:when={number}{lasting}")
        with Trial(lab, self._operation, self._face) as trial:
            answer = trial.strike(tracer)
            calls = tracer.trace.calls()
            hits = [one for one in calls if one.injected]
            if answer is None:
                trial.problems.append(f"the process died: exit status {trial.victim.end()}")
                return Result(self.name, fault, number, bool(hits), "died", tuple(trial.problems))
            outcome = answer["outcome"]
            trial.problems += swallowed(before_it_is_durable(calls), outcome) + retried(calls)
            if not hits and outcome != "done":
                trial.problems.append(f"it failed without a fault: {answer['error']}")
            trial.judge_file(answer)
            trial.judge_memory(answer)
            trial.judge_tidiness("after the error")
            trial.go_on()
            trial.follow_up()
            return Result(self.name, fault, number, bool(hits), outcome, tuple(trial.problems))


def swallowed(hits: Sequence[Call], outcome: str) -> list[str]:
    """Return what is wrong if a call that failed was needed, and the operation reported success."""
    needed = [
        hit
        for hit in hits
        if ".lock>" not in hit.text
        and "EINTR" not in hit.text
        and (hit.name in TOLD or (opens_to_sync(hit) and not any(error in hit.text for error in NO_ACCESS)))
    ]
    if outcome == "done" and needed:
        return [f"the call said done, although this failed: {needed[0].text}"]
    return []


def before_it_is_durable(calls: Sequence[Call]) -> list[Call]:
    """Return the faults before the file is replaced for good: a new journal that cannot be begun then can wait."""
    is_replaced = False
    hits: list[Call] = []
    for call in calls:
        if call.injected:
            hits.append(call)
        elif call.name in RENAMES and '.json"' in call.text:
            is_replaced = True
        elif call.name in SYNC and is_replaced:
            break
    return hits


def opens_to_sync(call: Call) -> bool:
    """Return whether a call opens a directory to sync it; opening one to list it uses O_NONBLOCK."""
    return call.name == "openat" and "O_DIRECTORY" in call.text and "O_NONBLOCK" not in call.text


def retried(calls: Sequence[Call]) -> list[str]:
    """Return what is wrong if a file was synced again after a failed sync: the kernel would wrongly report success."""
    failed: set[str] = set()
    for call in calls:
        if call.name in SYNC and call.on in failed:
            return [f"a failed sync was tried again: {call.text}"]
        if call.name in SYNC and call.injected:
            failed.add(call.on)
    return []
