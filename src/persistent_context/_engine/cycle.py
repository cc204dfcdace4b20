"""The critical section: everything that happens in a session is in one function."""

from __future__ import annotations

import contextlib
import copy
import logging
from collections.abc import Iterable, Sequence
from typing import Final

from .._model.draft import Draft
from .._model.nested import Conflict
from .._model.snapshot import Snapshot
from .._printable import printable
from .._stores.protocol import CorruptStateError, Session, SessionLostError
from ..errors import CorruptFileError, DurabilityUnknownError, LockLostError, PersistentContextError, StoreLimitError
from .request import Request

_logger = logging.getLogger("persistent_context")

_SHOWN_CONFLICTS: Final = 10


def carry_out(batch: Sequence[Request], session: Session, name: str) -> Sequence[Request]:
    """Carry out calls in a session: read, apply in order, commit once, close. Never raises.

    Every call has its result or its error afterwards, and if it succeeded, the resulting state.

    Args:
        batch: the calls; none, to close the session without reading.
        session: the session.
        name: the name of the store, for errors.

    Returns:
        The calls to carry out in another session instead: this one was lost before it wrote anything, or together they
        changed more than the store accepts at once.
    """
    accepting: Sequence[Request] = batch
    applied: list[Request] = []
    snapshot: Snapshot | None = None
    failure: BaseException | None = None
    try:
        accepting = read(batch, session, name)
        if accepting:
            operations = [request.operation for request in accepting]
            draft = Draft(session.snapshot, operations)
            applied = [request for request in accepting if _apply(request, draft, name)]
            with draft.committing():
                durable = draft.claims and any(request.durable for request in applied)
                try:
                    session.commit(draft.changes(), durable=durable)
                except DurabilityUnknownError as error:  # it was written nevertheless
                    failure = error
                snapshot = session.snapshot
                draft.note(snapshot)
    except BaseException as error:  # noqa: BLE001 - reported to the calls
        failure = error
    failure = _close(session, name) or failure
    # Without exclusive access, the state that a call failed on may not have been the latest one.
    if again := _to_repeat(failure, applied, applied if applied and session.is_exclusive else accepting):
        return again
    if isinstance(failure, SessionLostError):
        failure = LockLostError(str(failure))
    for request in applied if snapshot is not None else ():
        request.snapshot, request.position = snapshot, draft.position
        if request.operation.conflicts:
            _log_conflicts(request.operation.conflicts, name)
    if failure is not None:
        fail(batch, failure, name)
    return ()


def _to_repeat(
    failure: BaseException | None, applied: Sequence[Request], candidates: Sequence[Request]
) -> Sequence[Request]:
    """Return those candidates that an error of the commit does not end, as another session may take them."""
    if isinstance(failure, SessionLostError) and all(request.operation.repeatable for request in applied):
        return candidates
    if isinstance(failure, StoreLimitError) and len(applied) > 1:
        for request in candidates:
            request.goes_alone = True
        return candidates
    return ()


def read(batch: Sequence[Request], session: Session, name: str) -> Sequence[Request]:
    """Read the state for some calls, and set aside what is corrupt if one of them is to do so.

    Returns:
        The calls that continue. Those that fail if the state is corrupt have their error, whatever the others do: the
        outcome of a call does not depend on which others share its cycle.
    """
    try:
        if batch:
            session.snapshot  # noqa: B018 - read on first use
    except CorruptStateError as error:
        fail([request for request in batch if request.raises_if_corrupt], error, name)
        accepting = [request for request in batch if not request.raises_if_corrupt]
        if accepting:
            session.set_aside()
        return accepting
    return batch


def fail(batch: Iterable[Request], error: BaseException, name: str) -> None:
    """Record an error in the calls that have none of their own."""
    for request in batch:
        request.error = request.error or _named(own_copy(error), name)


def own_copy(error: BaseException) -> BaseException:
    """Return a copy of an error, as raising changes an exception; the error itself if it cannot be copied."""
    try:
        twin = copy.copy(error).with_traceback(error.__traceback__)
        twin.__cause__ = error.__cause__
    except Exception:  # noqa: BLE001 - from foreign exception classes
        return error
    return twin


def _apply(request: Request, draft: Draft, name: str) -> bool:
    """Apply a call to a draft; return whether it succeeded."""
    try:
        request.result = request.operation.apply(draft)
    except BaseException as error:  # noqa: BLE001 - reported to this call alone
        request.error = error  # unchanged: it may come from the caller's function
        if isinstance(error, PersistentContextError):
            error.about(name)
    return request.error is None


def _log_conflicts(conflicts: Sequence[Conflict], name: str) -> None:
    with contextlib.suppress(BaseException):  # from a logging handler: the call has taken effect nevertheless
        places = ", ".join(map(str, conflicts[:_SHOWN_CONFLICTS]))
        more = f" and {len(conflicts) - _SHOWN_CONFLICTS} more" if len(conflicts) > _SHOWN_CONFLICTS else ""
        _logger.info("%s: conflicts settled by on_conflict: %s%s", printable(name), places, more)


def _close(session: Session, name: str) -> DurabilityUnknownError | None:
    """Close a session; return the error if what it has written may not survive."""
    try:
        session.close()
    except DurabilityUnknownError as error:
        return error
    except BaseException:  # out of memory, for example: the calls have taken effect nevertheless
        with contextlib.suppress(BaseException):
            _logger.exception("%s: the cycle did not end cleanly", printable(name))
    return None


def _named(error: BaseException, name: str) -> BaseException:
    if isinstance(error, CorruptStateError):
        error = CorruptFileError(str(error), error.remedy)
    if isinstance(error, PersistentContextError):
        error.about(name)
    elif isinstance(error, OSError) and error.errno is not None and error.filename is None:
        with contextlib.suppress(Exception):  # a subclass may not allow setting it
            error.filename = name  # the system does not know it for a descriptor
    return error
