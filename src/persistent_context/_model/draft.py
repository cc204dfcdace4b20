"""What a lock cycle is about to commit: the stored state, overlaid with the changes of its operations."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Final, Protocol

from .merge import Unsaved
from .nested import rebase, resume
from .snapshot import Changes, Snapshot
from .tracking import Own, Tracker, next_position
from .values import MISSING, Frozen, MaybeText, same


class Origin(Frozen, frozen=True):
    """The context that an operation came from, and what the context knew at that time."""

    tracker: Tracker
    mark: int
    """The position of the last cycle whose outcome the context knew."""
    moment: int
    """When the call was made, on the context's clock of changes."""


class Part(Protocol):
    """One call's part in a cycle."""

    keys: Collection[str]
    """The keys that it reads or changes."""
    origin: Origin | None
    """The context that it belongs to."""


class Author(Protocol):
    """A call that writes."""

    @property
    def origin(self) -> Origin:
        """The context that it belongs to."""

    @property
    def unsaved(self) -> Mapping[str, Unsaved]:
        """The unsaved changes of the context that it includes."""


class Draft:
    """The file's committed state, overlaid with the changes of a cycle.

    Args:
        snapshot: the state.
        parts: the parts of the calls in the cycle.
    """

    def __init__(self, snapshot: Snapshot, parts: Sequence[Part]) -> None:
        self.position: Final = next_position()
        self._trackers: Final = {part.origin.tracker for part in parts if part.origin}
        self._texts: dict[str, MaybeText] = dict.fromkeys(
            itertools.chain.from_iterable(part.keys for part in parts), MISSING
        )
        self._texts.update(snapshot.get(self._texts))
        self._before = dict(self._texts)
        self._moved: set[str] = set()
        self._own: dict[Tracker, dict[str, Own]] = {}
        self._written: dict[Tracker, dict[str, MaybeText]] = {}
        self._is_new = not snapshot.exists
        self._must_exist = False
        self._claims = False
        self._folds = False

    @property
    def is_new(self) -> bool:
        """Whether there is no file, and nothing earlier in this cycle has created one."""
        return self._is_new

    def get(self, key: str) -> MaybeText:
        """Return the text of one of the keys that the draft was made for."""
        return self._texts[key]

    def pending(self, unsaved: Mapping[str, Unsaved], origin: Origin) -> dict[str, Unsaved]:
        """Return the context's changes that none of its earlier calls has included, against their current base."""
        return pending(unsaved, origin, partial(self._own_of, origin.tracker)) if unsaved else {}

    def put(
        self,
        changes: Mapping[str, MaybeText],
        author: Author,
        pending: Mapping[str, Unsaved],
        moved: Collection[str] = (),
    ) -> None:
        """Change texts on behalf of a call, which includes unsaved changes of its context.

        Args:
            changes: the new texts.
            author: the call.
            pending: its unsaved changes that no earlier call has included.
            moved: keys to move to the end.
        """
        tracker = author.origin.tracker
        self._moved.update(moved)
        own = self._own.setdefault(tracker, {})
        written = self._written.setdefault(tracker, {})
        without_effect = dict(pending)
        for key, text in changes.items():
            before = self._texts.get(key, MISSING)
            if before is MISSING or key in moved:  # these keep the order in which they came
                self._texts.pop(key, None)
            self._texts[key] = text
            if text != before:
                written[key] = text
                known = self._own_of(tracker, key)
                own[key] = Own(text, self.position, known.moment, known.taken)
                without_effect.pop(key, None)
        for key, change in without_effect.items():
            text = self._texts.get(key, MISSING)
            known = self._own_of(tracker, key)
            if same(text, change.mine):
                own[key] = Own(text, self.position, known.moment, known.taken)
                self._claims = True
            else:
                own[key] = Own(known.text, known.written, known.moment, known.taken, text)
        for key, change in pending.items():
            if change.moved:
                self._moved.add(key)
        # Even if an earlier call included a change: a later one may know of that call but not of this one.
        for key, change in author.unsaved.items():
            known = self._own_of(tracker, key)
            moment = max(known.moment, change.moment)
            own[key] = Own(known.text, known.written, moment, self.position, known.others)
        self._is_new = self._is_new and all(text is MISSING for text in changes.values())
        self._claims = self._claims or bool(changes)

    def claim(self) -> None:
        """Note that a call acknowledges what it found in the file, without changing it."""
        self._claims = True

    def fold(self) -> None:
        """Update what other programs read of the state, and make it survive a power loss."""
        self._claims = self._folds = True

    def create(self) -> None:
        """Write the file even if it is empty."""
        self._must_exist = self._is_new
        self._is_new = False

    @property
    def claims(self) -> bool:
        """Whether a call acknowledges what is stored: something it has written, or found to be there already."""
        return self._claims

    def changes(self) -> Changes:
        """Return the changes to commit."""
        texts = {key: text for key, text in self._texts.items() if not same(text, self._before.get(key, MISSING))}
        return Changes(texts, self._moved, creates=self._must_exist, folds=self._folds)

    @contextlib.contextmanager
    def committing(self) -> Iterator[None]:
        """Note for each context that changes are being committed in the block, and that the cycle is over after it."""
        for tracker in self._trackers:
            tracker.is_writing = True
        try:
            yield
        finally:
            for tracker in self._trackers:
                tracker.done = self.position
                tracker.is_writing = False

    def note(self, snapshot: Snapshot) -> None:
        """Record, for each context, what was committed, and the state that resulted."""
        for tracker, own in self._own.items():
            tracker.note(self.position, snapshot, own, self._written[tracker])

    def _own_of(self, tracker: Tracker, key: str) -> Own:
        return self._own.get(tracker, {}).get(key) or tracker.own(key)


def pending(unsaved: Mapping[str, Unsaved], origin: Origin, own_of: Callable[[str], Own]) -> dict[str, Unsaved]:
    """Return the changes that no earlier call of the context has included, against their current base.

    Args:
        unsaved: the context's values of keys, including those that it has set back to the text in the file.
        origin: what it knew at that time.
        own_of: returns what its earlier calls did to a key. One of them may have included a later change: a
            transaction sees the current memory when it touches a key.
    """
    found = {}
    for key, change in unsaved.items():
        own = own_of(key)
        is_included = own.taken > origin.mark
        if is_included and change.moment <= own.moment:
            continue
        included = change.sent.get(own.moment, change.base) if is_included else change.base
        if is_included and own.others is not None:
            mine, base = rebase(included, change.mine, own.others, key)
            found[key] = change._replace(base=base, mine=mine, guessed=False)
        elif own.text is not None and own.written > origin.mark:
            is_set = change.guessed and not is_included
            mine = change.mine if is_set else resume(included, change.mine, own.text, key)
            found[key] = change._replace(base=own.text, mine=mine, guessed=False)
        else:
            found[key] = change
    return found
