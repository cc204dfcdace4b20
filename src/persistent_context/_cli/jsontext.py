"""JSON texts that users type: parsed strictly, so that nothing is lost silently."""

from __future__ import annotations

import functools
import json
from typing import Any

from .._model.faults import refuse_constant
from .._printable import printable_json


def parse(text: str) -> Any:
    """Return the value of a JSON text.

    Raises:
        JSONDecodeError: it is not valid JSON.
        ValueError: it is JSON, but would not be stored as written.
    """
    try:
        return json.loads(text, parse_constant=functools.partial(refuse_constant, text), object_pairs_hook=_object)
    except RecursionError:
        msg = "it is nested too deeply"
        raise ValueError(msg) from None


def pretty(value: Any) -> str:
    """Return a value as indented JSON, without characters that control an editor or a terminal."""
    lines = json.dumps(value, ensure_ascii=False, indent=2).split("\n")
    return "".join(f"{printable_json(line)}\n" for line in lines)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            msg = f"an object has the key {key!r} twice"
            raise ValueError(msg)
        found[key] = value
    return found
