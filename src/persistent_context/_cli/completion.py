"""What a shell offers when it completes a key: the keys that the file has at that moment."""

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
"""A larger file is not read: whoever presses Tab waits."""
_MOST_KEYS: Final = 1000
_PLAIN: Final = re.compile(r"[\w@%+,./:-]+")
"""What every shell takes for one word, unquoted; shells differ in how they quote what a program offers."""


def complete_key(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return keys that begin with a text: none if the file cannot be read now, whatever the reason."""
    logging.disable()  # a warning would appear in the middle of the line that the user types
    try:
        path = identify(ctx.params["file"])
        if sum(os.path.getsize(name) for name in (path, f"{path}.journal") if os.path.exists(name)) > _MOST_BYTES:
            return []
        keys = LiveDict.of(open_store(path).snapshot())
        given = ctx.params.get("keys") or ()
        fitting = (key for key in keys if key.startswith(incomplete) and key not in given and _PLAIN.fullmatch(key))
        return list(itertools.islice(fitting, _MOST_KEYS))
    except Exception:  # noqa: BLE001 - there is nobody to tell
        return []
