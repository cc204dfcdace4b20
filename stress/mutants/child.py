"""The process of a catcher: verifies that the copy of the library is imported, then runs the catcher's module.

``python -m stress.mutants.child BUILD MODULE ARGUMENT ...``
"""

from __future__ import annotations

import importlib
import pkgutil
import runpy
import sys
import traceback
from pathlib import Path

NOT_THE_BUILD = 90
"""The exit code if the copy cannot be imported, or something else was imported."""


def check(build: str) -> None:
    """Import the whole library, and end the process unless it comes from the build."""
    try:
        package = importlib.import_module("persistent_context")
        modules = [
            importlib.import_module(f"{package.__name__}.{one.name}") for one in pkgutil.iter_modules(package.__path__)
        ]
    except BaseException:  # noqa: BLE001 - whatever it is, it is not a failed test
        traceback.print_exc()
        sys.exit(NOT_THE_BUILD)
    for module in (package, *modules):
        if not Path(str(module.__file__)).resolve().is_relative_to(Path(build).resolve()):
            print(f"imported from {module.__file__}, which is not in {build}", file=sys.stderr)
            sys.exit(NOT_THE_BUILD)


if __name__ == "__main__":
    _, directory, name, *arguments = sys.argv
    check(directory)
    sys.argv = [name, *arguments]
    runpy.run_module(name, run_name="__main__", alter_sys=True)
