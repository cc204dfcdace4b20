"""What a transaction's body works on: the file's committed state, and the unsaved changes that it touches."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any

from ._document import Document
from ._errors import ContextUsageError
from ._memory import LiveDict
from ._merge import OnConflict, Unsaved, merge, still_unsaved
from ._operations import Commit, Origin
from ._values import MISSING, MaybeText, check_key, is_key, plain_key, same


class Transaction(MutableMapping[str, Any]):
    """The file as it is, exclusively: every change made here is committed as one when the ``with`` block ends.

    A key with an unsaved change in the context is taken along when it is first touched: looked at, set or deleted.
    Iteration is over the keys in the file and those touched. Values are live: changing one in place is a change.
    """

    def __init__(
        self,
        document: Document,
        send: Callable[[str], Unsaved | None],
        policy: OnConflict,
        origin: Origin,
        filepath: str,
    ) -> None:
        self._document = document
        self._send = send
        self._policy = policy
        self._origin = origin
        self._filepath = filepath
        self._values = LiveDict()
        self._touched: dict[str, MaybeText] = {}
        self._taken: dict[str, Unsaved] = {}
        self._pid = os.getpid()
        self._is_over = False

    def __getitem__(self, key: str) -> Any:
        return self._values[self._touch(key)]

    def __setitem__(self, key: str, value: Any) -> None:
        self._values[self._touch(check_key(key))] = value

    def __delitem__(self, key: str) -> None:
        del self._values[self._touch(key)]

    def __contains__(self, key: object) -> bool:
        return self._touch(key) in self._values

    def __iter__(self) -> Iterator[str]:
        self._check()
        committed = [key for entries in self._document.entries() for key in entries]
        yield from [key for key in committed if key not in self._touched or key in self._values]
        known = set(committed)
        yield from [key for key in self._values if key not in known]

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        state = "over" if self._is_over else "open"
        return f"<{type(self).__name__} on {self._filepath!r}, {state}>"

    def _commit(self) -> Commit:
        """Return the operation that writes what was changed; the context ends the transaction with it.

        Raises:
            UnserializableValueError: a value that JSON cannot hold.
            ContextUsageError: in a forked child.
        """
        self._check()
        changes = {}
        for key, base in self._touched.items():
            text = self._values.text(key)
            if not same(text, base):
                changes[key] = text
        return Commit(changes, tuple(self._touched), self._taken, self._origin)

    def _finish(self) -> None:
        """Let nothing more be done with it."""
        self._is_over = True

    def _check(self) -> None:
        if self._is_over:
            raise ContextUsageError("this transaction is over: its with block has ended").about(self._filepath)
        if os.getpid() != self._pid:
            msg = f"this transaction belongs to process {self._pid}, from which this process was forked"
            raise ContextUsageError(msg).about(self._filepath)

    def _touch(self, key: Any) -> Any:
        """Take a key into the transaction, if it can be one, and return it as the plain ``str`` that it is."""
        self._check()
        key = plain_key(key)
        if key in self._touched or not is_key(key):
            return key
        theirs = self._document.find([key]).get(key, MISSING)
        change = self._send(key)
        sent = {key: change} if change else {}
        writes, mark, _ = self._origin
        if unsaved := still_unsaved(sent, writes.taken_since(mark, sent)):
            own = writes.since(mark, sent)
            self._values.take_along(key, theirs, merge(unsaved, {key: theirs}, self._policy, own)[key])
            self._taken.update(unsaved)
        else:
            self._values.take_over(key, theirs)
        self._touched[key] = theirs
        return key
