"""Copies of the library: the unbroken one, and broken ones."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from stress.mutants.model import Edit

PACKAGE = Path(__file__).resolve().parents[2] / "src" / "persistent_context"


class InapplicableError(Exception):
    """An edit does not fit the source: what it was to break is not there, or is there more than once."""


def edited(edits: Iterable[Edit], package: Path = PACKAGE) -> dict[str, str]:
    """Return the new texts of the modules that the edits change.

    Raises:
        InapplicableError: an edit does not fit, changes nothing, or leaves no valid Python.
    """
    texts: dict[str, str] = {}
    for edit in edits:
        file = package / f"{edit.module}.py"
        if edit.module not in texts:
            if not file.is_file():
                message = f"there is no module {edit.module}"
                raise InapplicableError(message)
            texts[edit.module] = file.read_text(encoding="utf-8")
        times = texts[edit.module].count(edit.old)
        if times != 1:
            message = f"{edit.module} holds the old text {times} times, not once: {edit.old!r}"
            raise InapplicableError(message)
        texts[edit.module] = texts[edit.module].replace(edit.old, edit.new)
        if edit.old == edit.new:
            message = f"the edit of {edit.module} changes nothing"
            raise InapplicableError(message)
    for module, text in texts.items():
        try:
            compile(text, f"{module}.py", "exec")
        except SyntaxError as error:
            message = f"{module} is no Python any more: {error}"
            raise InapplicableError(message) from error
    return texts


def build(directory: Path, edits: Iterable[Edit] = (), package: Path = PACKAGE) -> Path:
    """Make a copy of the package with the edits applied, and return the directory to import it from.

    Raises:
        InapplicableError: see :func:`edited`.
    """
    texts = edited(edits, package)
    root = directory / "build"
    copy = root / package.name
    shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for module, text in texts.items():
        (copy / f"{module}.py").write_text(text, encoding="utf-8")
    return root
