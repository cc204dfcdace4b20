"""Makes untrusted text safe to print."""

from __future__ import annotations

import json


def printable(text: str, *, keep: str = "") -> str:
    """Escape what is not printable, so that untrusted text cannot control a terminal.

    This follows Python's definition of printable: it escapes control characters including C1 and DEL, bidirectional
    marks, line separators, and lone surrogates.

    Args:
        text: the text to print.
        keep: characters that are never escaped.
    """
    return text if text.isprintable() else "".join(c if c.isprintable() or c in keep else ascii(c)[1:-1] for c in text)


def printable_json(text: str, encoding: str = "utf-8") -> str:
    r"""Escape what is unprintable or not in an encoding, in JSON on one line, as ``\u009b``, without changing it."""
    if text.isprintable() and _fits(text, encoding):
        return text
    return "".join(c if c.isprintable() and _fits(c, encoding) else json.dumps(c)[1:-1] for c in text)


def _fits(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True
