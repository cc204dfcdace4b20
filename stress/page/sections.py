"""The sections of text: the verdict, the findings, the set-up, the checks, and what the run does not show."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path

from stress.checking.checkers import CHECKERS
from stress.logs.history import Outcome
from stress.page.findings import count, findings
from stress.page.html import Html, join, section, tag
from stress.page.record import Record
from stress.page.timeline import GUIDE
from stress.run.gaps import gaps_after_kills
from stress.run.plan import ETCD
from stress.run.report import UNDECIDED, Verdict

ROOT = Path(__file__).parents[1]
MARKS = {Verdict.PASS: "✓", Verdict.FAIL: "✗"}


def header(record: Record) -> Html:
    """Return the verdict, in one word and in one sentence, and the command that repeats the run."""
    word, _, meaning = record.verdict.value.partition(": ")
    mark = tag("span", MARKS.get(record.verdict, "?"), class_="mark")
    return tag(
        "header",
        tag("p", "persistent-context · stress run", class_="kind"),
        tag("h1", mark, word, class_=f"verdict {record.verdict.name.lower()}"),
        tag("p", f"{_sentence(record)} {meaning.capitalize()}." if meaning else _sentence(record), class_="summary"),
        tag("p", "To repeat it:", class_="label"),
        tag("pre", _command(str(record.plan)), class_="command"),
    )


def _command(command: str) -> Html:
    """Return a command that wraps only before its options."""
    program, *options = command.split(" --")
    return join([program, *(tag("span", f"--{option}") for option in options)], " ")


def _sentence(record: Record) -> str:
    """Return what happened and the result."""
    faults = sum(map(len, record.faults.values()))
    happened = (
        f"{record.plan.processes:,} worker processes of {record.plan.tasks:,} tasks or threads hammered one file for"
        f" {record.course.seconds:.1f} seconds while {faults:,} faults struck, and"
        f" {record.tally.acknowledged:,} of their operations were acknowledged."
    )
    if record.verdict is Verdict.FAIL:
        found = count(record)
        return f"{happened} {found:,} finding{'s speak' if found > 1 else ' speaks'} against the library or the run."
    if record.verdict is Verdict.BROKEN:
        causes = [f"process {name} ended by itself" for name in record.course.died]
        causes += [f"no operation of {', '.join(record.idle)} was acknowledged"] if record.idle else []
        return f"{happened} But {', and '.join(causes[:12])}."
    return happened


def told_findings(record: Record) -> Html:
    """Return the findings against the run, if there are any."""
    told = findings(record)
    return section(f"Findings ({count(record):,})", tag("p", GUIDE, class_="caption"), *told) if told else Html()


def setting(record: Record) -> Html:
    """Return the options of the run and its environment."""
    plan, course = record.plan, record.course
    run = {
        "seed": plan.seed,
        "ended": record.written,
        "duration": f"{course.seconds:.1f} s of {plan.seconds:g} s asked for",
        "workers": f"{plan.processes:,} processes of {plan.tasks:,} tasks or threads",
        "processes": f"{course.started:,} started, {course.kills:,} killed, {len(course.died):,} died by themselves,"
        f" {len(course.hung):,} did not stop",
        "operations": f"{record.tally.invoked:,} invoked; {record.tally.acknowledged:,} acknowledged to workers",
    }
    if record.history.commits:
        run["commits"] = f"at least {record.history.commits:,}"
    if plan.store == ETCD:
        run["cluster"] = join([f"{plan.members:,} members of etcd", *gaps_after_kills(record.history)], "; ")
        run["not done"] = "; ".join(course.remarks)
    lists = (
        tag(
            "div",
            tag("h3", title),
            tag("dl", *(join([tag("dt", name), tag("dd", told)]) for name, told in facts.items())),
        )
        for title, facts in (("Run", run), ("Machine", record.machine))
    )
    return section("What ran, and on what", tag("div", *lists, class_="columns"))


def proofs(record: Record) -> Html:
    """Return each checker: what it proves, its input, its findings, and its source."""
    parts = []
    for workload in record.workloads:
        checker = CHECKERS.get(workload)
        found = record.violations.get(workload)
        given = record.tally.outcomes(workload)
        if found is None:
            mark, said = "?", "did not run"
        elif found and all(one.kind == UNDECIDED for one in found):
            mark, said = "?", f"gave up {len(found):,} times"
        elif found:
            mark, said = "✗", f"{len(found):,} wrong"
        elif not given[Outcome.OK]:
            mark, said = "?", "had nothing to check"
        else:
            mark, said = "✓", "found nothing wrong"
        state = {"✓": "pass", "✗": "fail"}.get(mark, "broken")
        head = tag(
            "h3",
            tag("span", mark, class_=f"mark {state}"),
            workload,
            tag("small", f"{said} in {given.total():,} operations"),
        )
        parts.append(tag("article", head, *(_proof(checker) if checker else ()), class_="checker"))
    caption = "Each checker is a pure function of the logged history and of the final file. Its source is below it."
    return section("What was checked", tag("p", caption, class_="caption"), *parts)


def _proof(checker: Callable[..., object]) -> Iterator[Html]:
    """Yield the promise that a checker checks, and its source if it is available."""
    function = inspect.unwrap(checker)
    if promise := inspect.getdoc(function):
        yield tag("p", promise)
    try:
        source, line = inspect.getsourcelines(function)
        file = Path(inspect.getsourcefile(function) or "").resolve()
    except (OSError, TypeError):
        return
    place = f"{file.relative_to(ROOT) if file.is_relative_to(ROOT) else file.name}:{line}"
    yield tag(
        "details", tag("summary", f"{getattr(function, '__name__', 'source')}, {place}"), tag("pre", "".join(source))
    )


def limits() -> Html:
    """Return what the page does not prove."""
    return section(
        "What this run does not show",
        tag(
            "p",
            "Processes were killed and stopped, the machine was not: that acknowledged changes survive a loss of"
            " power is shown by the fault tests. Nothing is shown about other file systems than the one named above,"
            " or about files on a network. A run that passes has found no error in the interleavings that it met;"
            " another seed meets others.",
        ),
    )
