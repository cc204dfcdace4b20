"""Committing to etcd: one transaction, and what follows if its answer never comes.

A commit carries an identity, which it writes into the marker, and compares the revision of the marker. So an unanswered
commit can be settled. If the marker is still the old one, it is replaced by one with another identity: the commit can
no longer be carried out, however late it arrives. If it is not, the identities that it has had since tell whether the
commit is among them. A commit is never just sent again: it might be carried out twice (etcd-io/etcd#18424).
"""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Sequence
from typing import Final

from ..._model.snapshot import Changes
from ..._model.values import MISSING
from ...errors import OutcomeUnknownError, StoreLimitError
from ..protocol import CorruptStateError
from .client import Client, Json, Outcome, are_modified_before, get, is_empty, is_modified_at, put
from .failures import RefusedError, UnansweredError, UnreachableError
from .feed import CompactedError, watch
from .state import Marker, State

OPERATIONS: Final = 100
"""How many operations, and as many comparisons, are sent in one list; a member refuses more than 128."""
MOST_BYTES: Final = 1_500_000
"""The most bytes in a transaction; a member refuses more than 1.5 MiB unless told otherwise."""
_OVERHEAD_BYTES: Final = 14
"""What an operation or comparison needs besides its key and value, at most."""
_BASE64: Final = 3 / 4
"""The share of a text in base64 that is sent to the other members."""
SETTLE_SECONDS: Final = 30.0
"""How long an unanswered commit is settled before its outcome is said to be unknown."""
_RETRY_SECONDS: Final = 0.2
_NO_SPACE: Final = "database space exceeded"
"""What etcd may also answer to a transaction that it has just carried out: the one that fills its store."""


class Committer:
    """Commits to one namespace. Usable from any thread.

    Args:
        client: the cluster.
    """

    def __init__(self, client: Client) -> None:
        self._client: Final = client
        self._numbers: Final = itertools.count(1)
        self.forget()

    def forget(self) -> None:
        """Take another name, in a forked child."""
        self._name = secrets.token_hex(8)
        self.trouble: UnreachableError | None = None
        """Why the last commit was not carried out, if no answer came; otherwise None."""

    def identity(self) -> str:
        """Return a new identity."""
        return f"{self._name}-{next(self._numbers)}"

    def commit(  # noqa: PLR0913 - a transaction has these parts
        self,
        state: State,
        changes: Changes,
        identity: str,
        *,
        when: Sequence[Json],
        then: Sequence[Json],
        otherwise: Sequence[Json],
    ) -> Outcome:
        """Commit changes to a state that must still be the latest one.

        Args:
            state: the state.
            changes: the changes.
            identity: a new identity.
            when: further comparisons.
            then: further operations.
            otherwise: what to do if a comparison is false.

        Returns:
            The outcome. If the answer never came, but the commit was carried out, nothing is in it that was read.

        Raises:
            StoreLimitError: a single transaction cannot hold the changes.
            UnreachableError: it was not carried out.
            OutcomeUnknownError: it could not be found out whether it was carried out.
            RefusedError: the cluster has refused it, and not carried it out.
        """
        writes = state.writes(changes, identity)
        untouched = _untouched(state, changes, one_by_one=len(writes) <= OPERATIONS)
        comparisons = [*when, is_modified_at(state.names.marker, state.marker.modified), *untouched]
        check_size(writes, comparisons, changes)
        trouble, self.trouble = None, None
        try:
            return self._client.transact([*_nested(writes), *then], when=comparisons, otherwise=otherwise)
        except UnansweredError as error:
            failure: Exception = (trouble := UnreachableError({error.endpoint: error.reason}))
            fence = self.identity()
        except RefusedError as error:
            if _NO_SPACE not in error.reason:
                raise
            failure, fence = error, ""  # it will not be carried out any more, but it may have been
        if revision := self._settled(state, identity, fence):
            return Outcome(succeeded=True, revision=revision, found=())
        self.trouble = trouble
        raise failure

    def _settled(self, state: State, identity: str, fence: str) -> int:
        """Return the revision of an uncertain commit; 0 if it was not carried out, and never will be.

        Args:
            state: the state that it was to change.
            identity: its identity.
            fence: the identity to replace the marker with; empty if the commit cannot arrive late.
        """
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            try:
                return self._settle(state, identity, fence)
            except (UnreachableError, UnansweredError) as error:
                reason = f"no endpoint could tell within {SETTLE_SECONDS:g} s whether it was made ({error})"
            except (RefusedError, CorruptStateError) as error:  # compacted, for example, or deleted with etcdctl
                reason = f"whether it was made cannot be found out any more ({error})"
                deadline = 0.0
            if time.monotonic() > deadline:
                msg = f"the change was sent, but {reason}; load the state and check it before you repeat the call"
                raise OutcomeUnknownError(msg)
            time.sleep(_RETRY_SECONDS)

    def _settle(self, state: State, identity: str, fence: str) -> int:
        key = state.names.marker
        outcome = self._client.transact(
            [put(key, Marker(fence, state.marker.exists).text())] if fence else (),
            when=[is_modified_at(key, state.marker.modified)],
            otherwise=[get(key)],
        )
        if outcome.succeeded:
            return 0
        if not outcome.found[0].items:
            msg = "the marker was deleted"
            raise CorruptStateError(msg)
        latest = Marker.of(outcome.found[0].items[0])
        if latest.identity in {identity, fence}:
            return latest.modified if latest.identity == identity else 0
        start = state.marker.modified + 1
        while True:
            try:
                return self._find(key, start, identity, fence, latest.modified)
            except CompactedError as error:
                then = {Marker.of(item).identity: item.modified for item in self._client.read_at(key, error.revision)}
                if not then.keys().isdisjoint({identity, fence}):
                    return then.get(identity, 0)
                if max(then.values(), default=0) != state.marker.modified:
                    raise
                start = error.revision + 1  # it was still the known marker: nothing is missing

    def _find(self, key: bytes, start: int, identity: str, fence: str, end: int) -> int:
        """Return the revision at which the marker had an identity, from a revision on up to another one; otherwise 0.

        Raises:
            CompactedError: the history begins later.
        """
        with watch(self._client, key, b"", start) as (_, batches):
            for revision, events in batches:
                made = {Marker.of(event.item).identity: event.item.modified for event in events}
                if identity in made:
                    return made[identity]
                if fence in made or revision >= end:
                    break
        return 0


def check_size(writes: Sequence[Json], comparisons: Sequence[Json], changes: Changes) -> None:
    """Raise StoreLimitError if one transaction cannot hold the operations that write the changes, and comparisons."""
    total = sum(_OVERHEAD_BYTES + _BASE64 * sum(map(len, next(iter(one.values())).values())) for one in writes)
    total += sum(_OVERHEAD_BYTES + _BASE64 * len(one["key"]) for one in comparisons)
    if total > MOST_BYTES:
        sizes = {key: 0 if text is MISSING else len(text) for key, text in changes.texts.items()}
        raise StoreLimitError(round(total), MOST_BYTES, max(sizes, key=sizes.__getitem__))


def nobody_is_in_line(state: State) -> Json:
    """Return the comparison for a commit without a turn."""
    return is_empty(state.names.queue)


def _untouched(state: State, changes: Changes, *, one_by_one: bool) -> list[Json]:
    """Return comparisons of the changed keys, which programs may have written that do not replace the marker."""
    if not one_by_one:  # compare all keys, of which the cluster has to look at each
        return [are_modified_before(state.names.values, state.revision + 1)]
    return [is_modified_at(state.names.value(key), state.modified.get(key, 0)) for key in changes.texts]


def _nested(operations: Sequence[Json]) -> list[Json]:
    """Return operations in transactions within transactions; a list and all those around it may have 128 entries."""
    depth = 1
    while (OPERATIONS // depth) ** depth < len(operations):
        depth += 1
    length = OPERATIONS // depth
    for _ in range(depth - 1):
        parts = (operations[start : start + length] for start in range(0, len(operations), length))
        operations = [{"request_txn": {"success": list(part)}} for part in parts]
    return list(operations)
