"""The gist of a value that may be long, for the log: enough to identify it, and the operations that it names."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

SHORT = 60
"""Characters of a value that is logged unchanged."""
TOKEN = re.compile(r"(?<![\w.-])[\w-]+\.\d+\.[\w-]+\.\d+(?![\w-])")
"""The id of an operation, anywhere in a value."""


def gist(value: Any) -> Any:
    """Return a JSON value itself if it is short, else a dictionary: its digest, and its first and last token."""
    text = json.dumps(value, sort_keys=True)
    if len(text) <= SHORT:
        return value
    tokens = TOKEN.findall(text)
    return {"digest": blake2b(text.encode(), digest_size=8).hexdigest(), "tokens": [*tokens[:1], *tokens[-1:]]}


def tokens_in(gist: Any) -> Iterator[str]:
    """Yield the ids of the operations that a gist names."""
    yield from TOKEN.findall(json.dumps(gist))
