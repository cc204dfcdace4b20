"""The environment of a run: machine, file system, Python, builds. A fact that cannot be found never fails the page."""

from __future__ import annotations

import hashlib
import os
import platform
import re
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import persistent_context

DEPENDENCIES = ("anyio", "filelock", "msgspec", "rich")
UNKNOWN = "not known"


def describe(directory: Path) -> dict[str, str]:
    """Return the facts that a reader needs to judge the figures, by name."""
    source = Path(persistent_context.__file__).parent
    return {
        "processor": _first(r"model name\s*:\s*(.+)", "/proc/cpuinfo") or platform.processor() or platform.machine(),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "memory": _memory(),
        "kernel": f"{platform.system()} {platform.release()}",
        "file system": _file_system(directory.resolve()),
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "persistent-context": f"{_version('persistent-context')}, source {_digest(source)}",
        "dependencies": ", ".join(f"{name} {_version(name)}" for name in DEPENDENCIES),
    }


def _first(pattern: str, path: str) -> str:
    """Return the first match of a pattern in a file."""
    with suppress(OSError):
        if found := re.search(pattern, Path(path).read_text(encoding="utf-8", errors="replace")):
            return found[1]
    return ""


def _memory() -> str:
    kilobytes = _first(r"MemTotal:\s*(\d+)", "/proc/meminfo")
    return f"{int(kilobytes) / 2**20:.1f} GiB" if kilobytes else UNKNOWN


def _file_system(directory: Path) -> str:
    """Return the type and options of the mount that a directory is on: the last one that covers it."""
    device = os.stat(directory).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    told = UNKNOWN
    with suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            here, _, there = line.partition(" - ")
            _, _, number, _, point, options, *_ = here.split()
            if number == wanted and directory.is_relative_to(point.encode().decode("unicode_escape")):
                kind, _, more = there.split(" ", 2)
                told = f"{kind} ({','.join(dict.fromkeys((options + ',' + more).split(',')))})"
    return told


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return UNKNOWN


def _digest(source: Path) -> str:
    """Return the beginning of a hash over all modules, which shows whether two runs used the same build."""
    whole = hashlib.sha256()
    for module in sorted(source.rglob("*.py")):
        whole.update(f"{module.relative_to(source)}\0".encode() + module.read_bytes())
    return f"sha256:{whole.hexdigest()[:16]}"
