"""The sections of figures: workloads under faults, operations, latency, time course, fairness, group commit."""

from __future__ import annotations

from stress.logs.history import Outcome
from stress.page.html import Html, join, section, table, tag
from stress.page.plots import decades, fairness, figure, grouping, over_time, spread, spread_axis
from stress.page.record import Record
from stress.run.report import UNDECIDED

PERCENTILES = (50, 90, 99, 99.9)


def number(count: int) -> Html:
    """Return a cell with a number."""
    return tag("td", f"{count:,}", class_="number" if count else "number zero")


def matrix(record: Record) -> Html:
    """Return which workloads ran under which faults."""
    kinds = list(record.faults)
    if not kinds:
        return section("Workloads under faults", tag("p", "No faults struck in this run.", class_="more"))
    headings = [
        "workload",
        *(join([kind, tag("small", f"{len(times):,} times")]) for kind, times in record.faults.items()),
    ]
    rows = [
        [tag("th", name, scope="row"), *(number(record.tally.under_way[name, kind]) for kind in kinds)]
        for name in record.workloads
    ]
    caption = (
        "Operations of each workload, in all processes, that were in flight at a moment when a fault of the kind"
        " struck. A zero is a combination that this run did not show."
    )
    return section("Workloads under faults", tag("p", caption, class_="caption"), table(headings, rows, "counts"))


def operations(record: Record) -> Html:
    """Return the outcomes of the operations, by workload and by name."""
    rows = []
    for workload in record.workloads:
        found = record.violations.get(workload, ())
        lost = sum(one.kind == "lost" for one in found)
        outcomes = record.tally.outcomes(workload)
        wrong = sum(one.kind not in ("lost", UNDECIDED) for one in found)
        cells = [outcomes.total(), *(outcomes[one] for one in Outcome), lost, wrong]
        rows.append([tag("th", workload, scope="row"), *map(number, cells)])
        for (of, name), line in sorted(record.tally.lines.items()):
            if of == workload:
                hits = [one.kind for one in found if any(shown.name == name for shown in one.operations)]
                lost, wrong = hits.count("lost"), sum(kind not in ("lost", UNDECIDED) for kind in hits)
                cells = [line.outcomes.total(), *(line.outcomes[one] for one in Outcome), lost, wrong]
                rows.append([tag("th", name, scope="row", class_="sub"), *map(number, cells)])
    headings = ("workload, operation", "invoked", "acknowledged", "failed", "unknown", "lost", "otherwise wrong")
    caption = (
        "Acknowledged: the call returned, so the change must be there. Failed: it raised, so nothing may be there."
        " Unknown: its process was killed or its end is not known, so it may have happened, wholly or not at all."
        " Lost and wrong: findings of the checker; in the row of an operation, those that name it."
    )
    return section("Operations", tag("p", caption, class_="caption"), table(headings, rows, "counts"))


def latency(record: Record) -> Html:
    """Return percentiles of the latency of each kind of operation."""
    lines = {key: line.latencies for key, line in sorted(record.tally.lines.items()) if line.latencies.classes}
    if not lines:
        return Html()
    scale = decades(lines.values())
    rows = []
    for (workload, name), latencies in lines.items():
        times = [*(latencies.percentile(percent) for percent in PERCENTILES), latencies.longest]
        cells = (tag("td", f"{time / 1e6:,.2f}", class_="number") for time in times)
        rows.append([tag("th", f"{workload} · {name}", scope="row"), *cells, spread(latencies, scale)])
    headings = ("operation", *(f"p{percent:g}" for percent in PERCENTILES), "longest", spread_axis(scale))
    caption = (
        "Milliseconds from invocation to acknowledgement, waiting for the lock and fsync included; percentiles are"
        " at most 1.6 % too high, the longest is exact. The dot is at p50, the bar ends at p99.9, the thin line at"
        " the longest; their scale is logarithmic. Look at how far the tail is from the middle: where waiting is"
        " unfair, it is long."
    )
    return section("Latency", tag("p", caption, class_="caption"), table(headings, rows, "counts"))


def course(record: Record) -> Html:
    """Return the plots over time."""
    if not record.tally.acknowledged:
        return Html()
    caption = (
        f"Acknowledged operations of all workers a second, and their latency, in slices of {record.tally.width:.2g}"
        " s; below, a tick for each fault. Look for a gap in the throughput or a step in the latency that outlasts a"
        " fault: a process that dies must not keep the lock. While the holder of the lock is stopped all have to wait,"
        " and must go on as soon as it does."
    )
    return section("In the course of time", figure(over_time(record.tally), caption))


def shares(record: Record) -> Html:
    """Return how the operations were spread over workers and tasks."""
    counts = {str(place): 0 for place in range(record.plan.processes)}
    for seat, done in record.tally.seats.items():
        worker = seat.partition(".")[0]
        counts[worker] = counts.get(worker, 0) + done
    if not record.tally.acknowledged:
        return Html()
    least, most = min(counts.values()), max(counts.values())
    seats = [done for seat, done in record.tally.seats.items() if seat.partition(".")[2].isdecimal()] or [0]
    caption = (
        f"Acknowledged operations by worker, the successors of a killed one included: least {least:,}, most {most:,}"
        f" ({_ratio(most, least)}); the dashed line is the mean. By task or thread: least {min(seats):,}, most"
        f" {max(seats):,}, of {len(seats):,} with acknowledged operations. Look for a bar near zero: it would be a"
        " worker that starves. Workers that use threads and workers that use tasks differ in speed."
    )
    return section("Fairness", figure(fairness(counts), caption))


def _ratio(most: int, least: int) -> str:
    return f"{most / least:.2f} times as much" if least else "one got nothing"


def commits(record: Record) -> Html:
    """Return how many operations one replacement of the file contained."""
    total, counted = record.tally.acknowledged, record.commits()
    if not record.history.commits:
        return Html()
    caption = (
        f"{total / record.history.commits:.1f} acknowledged operations for each commit, over the whole run ({total:,}"
        f" in {record.history.commits:,}). Those that changed nothing need no commit and are counted too; what a"
        " process committed just before it was killed is not known. Look for a line well above 1: there,"
        " calls that waited together shared one write and one fsync."
    )
    return section("Group commit", figure(grouping(record.tally, counted), caption))
