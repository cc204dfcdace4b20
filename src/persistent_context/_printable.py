"""Text of strangers, made safe to print."""

from __future__ import annotations

import json


def printable(text: str, *, keep: str = "") -> str:
    """Escape what is not printable, so that a stranger's text cannot steer a terminal.

    That is what Python calls so: control characters, C1 and DEL among them, marks that turn the direction of text,
    separators of lines, and lone surrogates.

    Args:
        text: what is to be printed.
        keep: characters that are left as they are all the same.
    """
    return text if text.isprintable() else "".join(c if c.isprintable() or c in keep else ascii(c)[1:-1] for c in text)


def printable_json(text: str, encoding: str = "utf-8") -> str:
    r"""Escape in JSON on one line what is not printable, or not in an encoding, as ``\u009b``: it means the same."""
    if text.isprintable() and _fits(text, encoding):
        return text
    return "".join(c if c.isprintable() and _fits(c, encoding) else json.dumps(c)[1:-1] for c in text)


def _fits(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True
