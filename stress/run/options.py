"""The command line of the stress run: tiers, and the options that override them."""

from __future__ import annotations

import argparse
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stress.run.members import MISSING, PROGRAM
from stress.run.plan import ABOUT_ETCD, ETCD, FILES, JOURNAL, JSON, KINDS, Plan

FAULTS = {"kill_every": 0.5, "stop_every": 2.0, "cancel_every": 0.2, "fork_every": 3.0}
OTHERS = {"foreign": 2, "ending": 1, "signals": 1, "watching": 2, "jobs": 1, "pages": 2, "threads": 1, "observing": 1}
TIERS: dict[str, dict[str, Any]] = {
    "quick": {"processes": 4, "tasks": 8, "seconds": 20.0, **FAULTS, **OTHERS, "kill_every": 1.0},
    "run": {"processes": 16, "tasks": 20, "seconds": 300.0, **FAULTS, **OTHERS},
    "soak": {"processes": 16, "tasks": 20, "seconds": 120.0, **FAULTS, **OTHERS},
}
"""The defaults of each tier. The seconds of a soak are those of one round."""
UNREST = {
    "kill_member_every": 15.0,
    "stop_member_every": 20.0,
    "restart_member_every": 40.0,
    "cut_off_every": 12.0,
    "compact_every": 2.0,
    "cut_answer_every": 0.5,
    "delay_request_every": 2.0,
    "lose_request_every": 2.0,
    "long_stop_every": 60.0,
}
SOMETIMES = {"kill_every": 3.0, "stop_every": 5.0, "cancel_every": 2.0, "watching": 1, "members": 3}
ETCD_TIERS: dict[str, dict[str, Any]] = {
    "quick": {**UNREST, **SOMETIMES, "processes": 3, "tasks": 6, "seconds": 30.0, "kill_member_every": 10.0},
    "run": {**UNREST, **SOMETIMES, "processes": 6, "tasks": 8},
    "soak": {**UNREST, **SOMETIMES, "processes": 6, "tasks": 8},
}
"""What is different if the states are in a cluster of etcd, where a call takes several times as long."""
HELP = {
    "processes": "worker processes",
    "tasks": "tasks or threads in each",
    "seconds": "how long to hammer; in a soak, in each round",
    "seed": "for the random choices: which operations and values, whom a fault strikes and when; not for how the system"
    " runs the processes, so a repeated run meets other interleavings",
    "kill_every": "mean seconds between two kills of workers; 0, here and below: never",
    "stop_every": "mean seconds between two stops of a process, often the one that holds the lock",
    "cancel_every": "mean seconds between two cancelled calls in each event loop",
    "fork_every": "mean seconds between two forked children in each worker",
    "delete_lock_every": "mean seconds between two deletions of the lock file; not with foreign processes",
    "foreign": "processes that use only filelock and json",
    "ending": "processes that start programs which are ended in the middle of their work, and save at that moment",
    "signals": "processes whose blocking calls are hit by signals",
    "watching": "processes whose threads and event loops watch a file of many pages",
    "jobs": "processes with tens of thousands of short-lived keys",
    "pages": "processes that change a file of many pages, and are killed now and then",
    "threads": "processes whose threads hammer a file through contexts that they share or own",
    "observing": "processes that watch every file, and write nothing",
    "journal": "processes that begin and end journals; if there are any, the files begin with one",
}
ETCD_HELP = {
    "members": "members of the cluster",
    "kill_member_every": "mean seconds between two members that are killed, half of them leaders",
    "stop_member_every": "mean seconds between two members that are stopped",
    "restart_member_every": "mean seconds between two members that are ended and started again",
    "cut_off_every": "mean seconds between two members that are cut off from others, as root on Linux",
    "compact_every": "mean seconds between two compactions of the history",
    "cut_answer_every": "mean seconds between two requests that are carried out, but whose answer gets lost",
    "delay_request_every": "mean seconds between two requests that arrive after their client has given up",
    "lose_request_every": "mean seconds between two requests that never arrive",
    "long_stop_every": "mean seconds between two processes that are stopped for longer than a lease of etcd lives",
}
COUNTS = ("processes", "tasks", "seed", "members", *KINDS, JOURNAL)


@dataclass(frozen=True, slots=True)
class Options:
    """The options of the user."""

    plan: Plan
    directory: Path | None
    """Where to make the run's directory."""
    keep: bool
    quiet: bool
    report: Path | None
    hours: float | None
    """How long a soak is to last; `None` if it is a single run."""
    resume: Path | None


def parse(arguments: list[str] | None = None) -> Options:
    """Return what the command line says; end the process if it is not valid."""
    parser = argparse.ArgumentParser(
        prog="python -m stress",
        description="Hammers one file from many processes, and checks every acknowledged operation."
        " Exits with 0 if nothing was lost, 1 if something was, 2 if nothing was shown.",
    )
    parser.add_argument(
        "--tier",
        choices=TIERS,
        default="run",
        help="quick: well under a minute; run: five minutes; soak: rounds for hours (default: %(default)s)",
    )
    parser.add_argument(
        "--store",
        choices=(JSON, ETCD),
        default=JSON,
        help="where the states are: in JSON files, or in a cluster of etcd that the run starts (default: %(default)s)",
    )
    _add_numbers(parser, HELP, TIERS)
    _add_numbers(parser.add_argument_group("with --store etcd"), ETCD_HELP, ETCD_TIERS)
    parser.add_argument("--hours", type=float, help="how long a soak lasts (default: until it is interrupted)")
    parser.add_argument("--resume", type=Path, metavar="DIR", help="continue the soak that left this directory")
    parser.add_argument("--dir", type=Path, help="where to make the run's directory (default: the temporary directory)")
    parser.add_argument("--keep", action="store_true", help="keep the run's directory even if nothing was lost")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write a page about the run, whatever its result")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    options = parser.parse_args(arguments)

    values = _values(options, parser)
    for directory in filter(None, (options.dir, options.resume)):
        if not directory.is_dir():
            parser.error(f"no such directory: {directory}")
    soaks = options.tier == "soak" or options.resume is not None
    return Options(
        plan=Plan(**values),
        directory=options.dir,
        keep=options.keep,
        quiet=options.quiet,
        report=options.report,
        hours=(options.hours or float("inf")) if soaks else None,
        resume=options.resume,
    )


def _add_numbers(parser: Any, texts: Mapping[str, str], tiers: Mapping[str, Mapping[str, Any]]) -> None:
    """Add options to a parser, or to a group of one."""
    for name, text in texts.items():
        number = int if name in COUNTS else float
        defaults = ", ".join(f"{tier} {values[name]:g}" for tier, values in tiers.items() if name in values)
        parser.add_argument(_flag(name), type=number, help=f"{text} ({defaults})" if defaults else text)


def _values(options: argparse.Namespace, parser: argparse.ArgumentParser) -> dict[str, Any]:
    """Return the values of a plan; end the process if they do not go together."""
    given = {name: value for name in (*HELP, *ETCD_HELP) if (value := getattr(options, name)) is not None}
    in_etcd = options.store == ETCD
    tier = {**TIERS[options.tier], **(ETCD_TIERS[options.tier] if in_etcd else {})}
    unused = FILES if in_etcd else ABOUT_ETCD
    for name in unused:
        if given.get(name):
            parser.error(f"{_flag(name)} is of no use with --store {options.store}")
    values: dict[str, Any] = {"seed": random.randrange(10**6), "delete_lock_every": 0.0, JOURNAL: 0, **tier}
    values = {name: value for name, value in (values | given).items() if name not in unused}
    if min(values["processes"], values["tasks"], values["seconds"]) <= 0:
        parser.error("--processes, --tasks and --seconds must be positive")
    if in_etcd and values["members"] <= 0:
        parser.error("--members must be positive")
    if in_etcd and PROGRAM is None:
        parser.error(MISSING)
    if min(values.values()) < 0:
        parser.error("no option can be negative")
    if not in_etcd and values["delete_lock_every"] and values["foreign"]:
        parser.error("a plain filelock user cannot notice that the lock file was deleted: add --foreign 0")
    return {**values, "store": options.store}


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
