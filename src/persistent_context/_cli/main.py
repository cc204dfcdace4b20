"""The command line: its commands, its options, and how its errors are reported."""

from __future__ import annotations

import logging
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ..errors import LockTimeoutError, PersistentContextError, StoreUnavailableError
from .arguments import TAKES_VALUES
from .editing import edit
from .reading import get, keys, show, watch, who
from .streams import TIMED_OUT, fail, prepare_streams, say, without_credentials
from .tools import checkpoint, demo, doctor, journal
from .writing import append, copy, delete, incr, restore, set_, take


class _Commands(TyperGroup):
    """The commands. An error of usage may quote an argument, which may be a URL."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Exception as error:  # typer does not say which class it is
            if isinstance(message := getattr(error, "message", None), str):
                error.message = without_credentials(message)  # type: ignore[attr-defined]
            raise


app = typer.Typer(
    cls=_Commands,
    help="Inspect and change a JSON file, or a state in etcd, that programs share through PersistentContext, as safely "
    "as these programs.",
    epilog="Exit codes: 0 done, 1 failed or no such key, 2 wrong usage, 3 the lock could not be acquired in time, or "
    "etcd could not be reached.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command()(show)
app.command()(get)
app.command()(keys)
app.command("set", context_settings=TAKES_VALUES)(set_)
app.command(context_settings=TAKES_VALUES)(append)
app.command()(take)
app.command(context_settings=TAKES_VALUES)(incr)
app.command()(delete)
app.command()(edit)
app.command()(watch)
app.command()(journal)
app.command()(checkpoint)
app.command()(who)
app.command()(doctor)
app.command()(restore)
app.command()(copy)
app.command()(demo)


def run() -> None:
    """Run the command line; an error results in one line on standard error and an exit code."""
    prepare_streams()
    try:
        app()
    except (LockTimeoutError, StoreUnavailableError) as error:
        fail(str(error), TIMED_OUT)
    except ModuleNotFoundError as error:  # of what an extra brings; the message says how to install it
        fail(str(error))
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except PersistentContextError as error:
        fail(str(error))


def _version(wanted: bool) -> None:
    if wanted:
        say(f"persistent-context {version('persistent-context')}")
        raise typer.Exit


@app.callback()
def _options(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what happens to standard error.")] = False,
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    logging.basicConfig(format="%(levelname)s: %(message)s")
    logging.getLogger("persistent_context").setLevel(logging.DEBUG if verbose else logging.WARNING)
