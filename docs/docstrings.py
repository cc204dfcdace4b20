"""Prepares the docstrings for the site: turns text written for ``help()`` into Markdown with links."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import griffe

import persistent_context

ROLE = re.compile(r":\w+:`([\w.]+)`")
"""A role of reStructuredText, such as ``:meth:`load```."""


class Docstrings(griffe.Extension):
    """Turns roles into links, and gives the two classes the docstrings that are generated when they are imported."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Prepare one docstring."""
        if obj.is_class and "__doc__" in obj.members:
            made = getattr(persistent_context, obj.name).__doc__
            obj.docstring = griffe.Docstring(made, parent=obj, parser="google")
        if obj.docstring:
            obj.docstring.value = ROLE.sub(partial(link, obj), obj.docstring.value)


def link(obj: griffe.Object, role: re.Match[str]) -> str:
    """Return a link to a public name, or to a method of the same class."""
    name = role[1]
    if name.partition(".")[0] in persistent_context.__all__:
        return f"[`{name}`][persistent_context.{name}]"
    if obj.parent and name in obj.parent.members:
        return f"[`{name}`][persistent_context.{obj.parent.name}.{name}]"
    return f"`{name}`"
