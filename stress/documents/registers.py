"""A register: a value that names the operation that wrote it, under one key or under several that change together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Register:
    """Where a value is kept, and in what form."""

    name: str
    """Its name in the logs."""
    keys: tuple[str, ...]
    """Its keys in the file, which always have the same value."""
    dress: Callable[[str], str] = str
    """Returns the text that is written for an operation's token. It begins with the token, perhaps padded with dots."""

    def held(self, get: Callable[[str], Any]) -> str | None:
        """Return the token of the value, or None if there is none; a value that no operation wrote gives another text.

        Args:
            get: returns the value of a key in the file, or None.
        """
        values = [get(key) for key in self.keys]
        tokens = [value.partition(" ")[0].rstrip(".") if isinstance(value, str) else None for value in values]
        whole = [None if token is None else self.dress(token) for token in tokens]
        if values == whole and len({*tokens}) == 1:
            return tokens[0]
        return f"a mixture of {tokens}"
