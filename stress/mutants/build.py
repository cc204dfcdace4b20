"""Copies of the library: the unbroken one, and broken ones."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from stress.mutants.model import Edit

PACKAGE = Path(__file__).resolve().parents[2] / "src" / "persistent_context"
PLUGIN = "pytest_persistent_context"
"""The only module beside the package."""


class InapplicableError(Exception):
    """An edit does not fit the source: the text to replace is missing, or occurs more than once."""


def edited(edits: Iterable[Edit], package: Path = PACKAGE) -> dict[str, str]:
    """Return the new texts of the modules that the edits change.

    Raises:
        InapplicableError: an edit does not fit, changes nothing, or does not leave valid Python.
    """
    texts: dict[str, str] = {}
    for edit in edits:
        file = module_file(package, edit.module)
        if edit.module not in texts:
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
            message = f"{module} is no longer valid Python: {error}"
            raise InapplicableError(message) from error
    return texts


def module_file(package: Path, module: str) -> Path:
    """Return the file of a module of the library, by its name or, if several have that name, by the end of its path.

    Raises:
        InapplicableError: no module has the name, or several have it.
    """
    if module == PLUGIN:
        return package.parent / f"{module}.py"
    files = [file for file in package.rglob(f"{module.rpartition('/')[2]}.py") if f"/{module}.py" in file.as_posix()]
    if len(files) != 1:
        message = f"there are {len(files)} modules {module}" if files else f"there is no module {module}"
        raise InapplicableError(message)
    return files[0]


def build(directory: Path, edits: Iterable[Edit] = (), package: Path = PACKAGE) -> Path:
    """Make a copy of the package with the edits applied, and return the directory to import it from.

    Raises:
        InapplicableError: see :func:`edited`.
    """
    texts = edited(edits, package)
    root = directory / "build"
    copy = root / package.name
    copy_library(package, copy)
    for module, text in texts.items():
        module_file(copy, module).write_text(text, encoding="utf-8")
    return root


def copy_library(package: Path, copy: Path) -> None:
    """Copy the package, and the plugin beside it."""
    shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(module_file(package, PLUGIN), module_file(copy, PLUGIN))
