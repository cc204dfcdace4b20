"""Text of strangers, made safe to print."""

from __future__ import annotations


def printable(text: str) -> str:
    """Escape what is not printable, so that a stranger's text cannot steer a terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
