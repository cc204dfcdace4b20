"""Metrics: the cost of every lock cycle, reported to listeners.

Import it explicitly: ``from persistent_context import metrics``.
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
    """One lock cycle of a file: acquire the lock, carry out calls, release the lock.

    Attributes:
        filepath: the real path of the file.
        purpose: the call for which the lock was taken: ``"save"``, ``"incr"``, ``"transaction"`` and so on. Other
            calls waiting in this process are carried out in the same cycle.
        operations: how many calls completed in it.
        waited: how long it waited for other processes, in seconds; 0.0 if the lock was free.
        held: how long the lock was held, in seconds.
        bytes_written: the size of the new file, or of what was appended to its journal; 0 if nothing was written.
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
    """Call a function after every lock cycle of this process, on any file. Does not suspend.

    It is called after the lock is released and before the calls of the cycle return: in another thread, sequentially
    for one file, concurrently for several. Keep it quick. Exceptions that it raises are logged and ignored.

    Args:
        listener: called with each :class:`Cycle`. It must not make calls on the same file.

    Returns:
        A function that removes the listener.
    """
    entry = functools.partial(listener)  # the same function may listen twice, and be removed once
    _listeners.append(entry)

    def stop() -> None:
        if entry in _listeners:
            _listeners.remove(entry)

    return stop


def record_to_opentelemetry(meter_provider: MeterProvider | None = None) -> Callable[[], None]:
    """Record every lock cycle of this process with OpenTelemetry; needs the extra ``otel``. Does not suspend.

    The instruments are the histograms ``persistent_context.lock.wait`` (only for cycles that had to wait) and
    ``persistent_context.lock.hold``, in seconds, and the counters ``persistent_context.operations`` and
    ``persistent_context.written``, in bytes. Their attributes are ``file.path`` and ``persistent_context.purpose``.

    Args:
        meter_provider: the provider to record with; by default the global one, even if it is set later.

    Returns:
        A function that stops recording.

    Raises:
        ImportError: OpenTelemetry's API is not installed.
    """
    from opentelemetry.metrics import get_meter  # noqa: PLC0415 - imported only when used

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
    """Report a cycle to the listeners, and to the log at DEBUG."""
    _logger.debug("%s", cycle)
    for listener in tuple(_listeners):
        try:
            listener(cycle)
        except BaseException:  # it must not end the thread that other calls depend on
            _logger.exception("a metrics listener failed")
