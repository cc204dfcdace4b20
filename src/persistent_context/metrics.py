"""Metrics: what every turn at a file took, told to whoever listens.

Import it by its name: ``from persistent_context import metrics``.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from ._printable import printable

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider

_logger = logging.getLogger("persistent_context")
_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Cycle(NamedTuple):
    """One turn at a file: the lock was taken, calls were carried out, the lock was released.

    Attributes:
        filepath: the real path of the file.
        purpose: the call for which the lock was taken: ``"save"``, ``"incr"``, ``"transaction"`` and so on. Others that
            waited in this process were carried along.
        operations: how many calls came to an end in it.
        waited: how long other processes were waited for, in seconds; 0.0 if the lock was free.
        held: how long the lock was held, in seconds.
        bytes_written: the size of the new file; 0 if nothing was written.
    """

    filepath: str
    purpose: str
    operations: int
    waited: float
    held: float
    bytes_written: int

    def __str__(self) -> str:
        """Describe the cycle in one line that is safe to print."""
        return (
            f"{printable(self.filepath)}: {self.purpose}: waited {1000 * self.waited:.1f} ms, "
            f"held {1000 * self.held:.1f} ms, operations {self.operations}, bytes written {self.bytes_written}"
        )


_listeners: Final[list[Callable[[Cycle], object]]] = []


def listen(listener: Callable[[Cycle], object]) -> Callable[[], None]:
    """Have a function called after every cycle of this process, on whichever file. Does not suspend.

    It is called when the lock is released, and before the calls of the cycle return: in another thread, one after the
    other for one file, at once for several files. Keep it quick. What it raises is logged, and hurts nobody.

    Args:
        listener: takes the :class:`Cycle`. It must not call the same file.

    Returns:
        A function that ends this.
    """
    entry = functools.partial(listener)  # the same function may listen twice, and be ended once
    _listeners.append(entry)

    def stop() -> None:
        if entry in _listeners:
            _listeners.remove(entry)

    return stop


def record_to_opentelemetry(meter_provider: MeterProvider | None = None) -> Callable[[], None]:
    """Record every cycle of this process with OpenTelemetry; needs the extra ``otel``. Does not suspend.

    The instruments are the histograms ``persistent_context.lock.wait`` (only of cycles that had to wait) and
    ``persistent_context.lock.hold``, in seconds, and the counters ``persistent_context.operations`` and
    ``persistent_context.written``, in bytes. Their attributes are ``file.path`` and ``persistent_context.purpose``.

    Args:
        meter_provider: where to record; by default the global one, also if that is set later.

    Returns:
        A function that ends this.

    Raises:
        ImportError: OpenTelemetry's API is not installed.
    """
    from opentelemetry.metrics import get_meter  # noqa: PLC0415 - only who asks for it pays for it

    meter = get_meter("persistent_context", meter_provider=meter_provider)
    wait = meter.create_histogram(
        "persistent_context.lock.wait",
        "s",
        "Time spent waiting for other processes",
        explicit_bucket_boundaries_advisory=_BUCKETS,
    )
    hold = meter.create_histogram(
        "persistent_context.lock.hold",
        "s",
        "Time the lock was held",
        explicit_bucket_boundaries_advisory=_BUCKETS,
    )
    operations = meter.create_counter("persistent_context.operations", "{operation}", "Completed calls")
    written = meter.create_counter("persistent_context.written", "By", "Bytes written")

    def record(cycle: Cycle) -> None:
        attributes = {"file.path": cycle.filepath, "persistent_context.purpose": cycle.purpose}
        if cycle.waited:
            wait.record(cycle.waited, attributes)
        hold.record(cycle.held, attributes)
        operations.add(cycle.operations, attributes)
        written.add(cycle.bytes_written, attributes)

    return listen(record)


def report(cycle: Cycle) -> None:
    """Tell the listeners, and at DEBUG the log, of a cycle."""
    _logger.debug("%s", cycle)
    for listener in tuple(_listeners):
        try:
            listener(cycle)
        except BaseException:  # it must not end the thread of the cycle, in which others' calls wait
            _logger.exception("a metrics listener failed")
