"""Shell completion of keys: offers the keys that the file has at that moment."""

from __future__ import annotations

import itertools
import logging
import os
import re
from typing import Final

import typer

from .._model.live import LiveDict
from .._stores.factory import identify, open_store

_MOST_BYTES: Final = 16 * 1024 * 1024
"""A larger file is not read, as the user who pressed Tab is waiting."""
_MOST_KEYS: Final = 1000
_PLAIN: Final = re.compile(r"[\w@%+,./:-]+")
"""Keys that every shell takes for one word without quotes; shells differ in how they quote completions."""


def complete_key(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the keys that begin with a text; none if the file cannot be read, whatever the reason."""
    logging.disable()  # a warning would appear in the middle of the line that the user types
    try:
        path = identify(ctx.params["file"])
        if sum(os.path.getsize(name) for name in (path, f"{path}.journal") if os.path.exists(name)) > _MOST_BYTES:
            return []
        keys = LiveDict.of(open_store(path).snapshot())
        given = ctx.params.get("keys") or ()
        fitting = (key for key in keys if key.startswith(incomplete) and key not in given and _PLAIN.fullmatch(key))
        return list(itertools.islice(fitting, _MOST_KEYS))
    except Exception:  # noqa: BLE001 - there is nowhere to report it
        return []
