"""The command line: ``persistent-context``, or ``python -m persistent_context``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line, or say which packages are missing."""
    try:
        import typer  # noqa: F401, PLC0415 - only looked for
    except ImportError:
        sys.exit("error: the command line needs the extra 'cli': in a checkout, pip install '.[cli]'")
    from ._cli.main import run  # noqa: PLC0415

    run()


if __name__ == "__main__":
    main()
