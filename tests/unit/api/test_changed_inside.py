"""Changing a context inside a transaction of the same task or thread, which does not commit the change, warns."""

import asyncio
import json
import threading
import warnings
from pathlib import Path

import pytest

from persistent_context import PersistentContext, SyncPersistentContext, UnsavedInTransactionWarning
from persistent_context.runtime import ContextManager

CHANGES = {
    "set": lambda ctx: ctx.set("a", 2),
    "item": lambda ctx: ctx.__setitem__("a", 2),
    "del": lambda ctx: ctx.__delitem__("a"),
    "pop": lambda ctx: ctx.pop("a"),
    "popitem": lambda ctx: ctx.popitem(),
    "setdefault": lambda ctx: ctx.setdefault("new", 2),
    "update": lambda ctx: ctx.update(a=2),
    "clear": lambda ctx: ctx.clear(),
}
NO_CHANGES = {
    "get": lambda ctx: ctx.get("a"),
    "pop": lambda ctx: ctx.pop("new", None),
    "setdefault": lambda ctx: ctx.setdefault("a", 2),
    "update": lambda ctx: ctx.update(),
    "iteration": list,
}

A_LOOP = """\
import sys
from persistent_context import SyncPersistentContext

ctx = SyncPersistentContext.create(sys.argv[1])
with ctx.transaction() as tx:
    for number in range(3):
        ctx[f"key-{number}"] = number
"""

A_FORK = """
import os, sys, warnings
from persistent_context import SyncPersistentContext

warnings.simplefilter("error")
ctx = SyncPersistentContext.create(sys.argv[1])
with ctx.transaction() as tx:
    tx["a"] = 1
    if (child := os.fork()) == 0:
        try:
            ctx["a"] = 2
        finally:
            os._exit(ctx["a"])
    assert 2 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""


@pytest.fixture
def path(path):
    """A file with a key."""
    path.write_text('{"a": 1}', encoding="utf-8")
    return path


@pytest.fixture
def link(path):
    """Another path to the file."""
    other = path.with_name("link.json")
    other.symlink_to(path)
    return other


class TestInside:
    @pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
    def test_every_change_is_noticed(self, face, path, change):
        """Whichever method changes the context, the warning says what to use, and names the line of the program."""
        ctx = face.open(path)
        with pytest.warns(UnsavedInTransactionWarning, match=r"use tx\[\.\.\.\] instead") as caught:
            face.inside(ctx.transaction, lambda _: change(ctx))

        assert [Path(__file__).name] == [Path(one.filename).name for one in caught]
        assert {"a": 1} == json.loads(path.read_text(encoding="utf-8"))
        assert 1 == len(ctx.unsaved_keys())

    @pytest.mark.parametrize("call", NO_CHANGES.values(), ids=NO_CHANGES)
    def test_what_changes_nothing_is_fine(self, face, path, call):
        """A method that could change the context, but does not, causes no warning."""
        ctx = face.open(path)
        face.inside(ctx.transaction, lambda _: call(ctx))

        assert set() == ctx.unsaved_keys()

    def test_a_warning_that_is_an_error_changes_nothing(self, face, path):
        """With ``-W error`` the whole change is refused."""
        ctx = face.open(path)
        with warnings.catch_warnings(), pytest.raises(UnsavedInTransactionWarning):
            warnings.simplefilter("error")
            face.inside(ctx.transaction, lambda _: ctx.update(a=2, b=3))

        assert ({"a": 1}, set()) == (dict(ctx), ctx.unsaved_keys())

    def test_through_whichever_context(self, face, path, link):
        """It does not matter whether it is the same context, its class, its path, or whether it is loaded."""
        ctx, other = face.open(path), face.open(link)
        contexts = [ctx, other, SyncPersistentContext(path), PersistentContext(path)]
        for holder in (ctx, other):
            for changed in contexts:
                with pytest.warns(UnsavedInTransactionWarning):
                    face.inside(holder.transaction, lambda _, changed=changed: changed.set("b", 1))

    async def test_a_blocking_transaction_in_a_task(self, path):
        """A task inside a blocking transaction gets the warning, too."""
        ctx = SyncPersistentContext.create(path)
        with ctx.transaction(), pytest.warns(UnsavedInTransactionWarning):
            ctx.set("b", 1)

    async def test_a_context_for_tasks_names_the_line_of_the_program(self, path):
        """The warning skips all layers between the change and the program."""
        context = await ContextManager(path, persistent=["a", "b"]).create_context()
        async with context.transaction():
            with pytest.warns(UnsavedInTransactionWarning) as caught:
                context["a"] = 2
                context.update(b=3)
                context.setdefault("b")

        assert [Path(__file__).name] * 2 == [Path(one.filename).name for one in caught]

    def test_python_shows_it_once_a_place(self, path, spawn, tmp_path):
        """By default, a program that does so in a loop gets one warning, with its own line."""
        script = tmp_path / "loop.py"
        script.write_text(A_LOOP, encoding="utf-8")
        child = spawn(f"import runpy, sys\nsys.argv = ['', {str(path)!r}]\nrunpy.run_path({str(script)!r})")
        child.finish()
        shown = (tmp_path / "child-0.stderr").read_text(encoding="utf-8")

        assert (1, True) == (shown.count("UnsavedInTransactionWarning"), f"{script}:7: " in shown)


class TestElsewhere:
    """All warnings are errors here, so a warning would make the change fail."""

    async def test_other_tasks(self, path):
        """A task that was started inside the block is not inside, and neither is one that was started before."""
        ctx = await PersistentContext.create(path)
        begin = asyncio.Event()

        async def change(key):
            await begin.wait()
            ctx[key] = 1

        earlier = asyncio.create_task(change("b"))
        async with ctx.transaction():
            begin.set()
            await earlier
            await asyncio.create_task(change("c"))
            asyncio.get_running_loop().call_soon(ctx.set, "d", 1)
            await asyncio.to_thread(ctx.set, "e", 1)

        assert {"b", "c", "d", "e"} == ctx.unsaved_keys()

    def test_other_threads(self, path):
        """A thread that runs at the same time is not inside."""
        ctx = SyncPersistentContext.create(path)
        with ctx.transaction():
            thread = threading.Thread(target=ctx.set, args=("b", 1))
            thread.start()
            thread.join()

        assert {"b"} == ctx.unsaved_keys()

    def test_before_and_after(self, face, path):
        """Outside of the block there is no warning, even after a block that failed."""
        ctx = face.open(path)
        ctx["b"] = 1
        face.inside(ctx.transaction, lambda tx: tx.update(a=2))
        ctx["b"] = 2
        with pytest.raises(ZeroDivisionError):
            face.inside(ctx.transaction, lambda _: 1 / 0)
        ctx["b"] = 3

        assert {"b"} == ctx.unsaved_keys()

    def test_other_files(self, face, path):
        """A transaction on one file does not affect another."""
        ctx, other = face.open(path), face.open(path.with_name("other.json"))
        face.inside(ctx.transaction, lambda _: other.set("b", 1))

        assert {"b"} == other.unsaved_keys()

    async def test_what_is_loaded_inside(self, path):
        """What the library takes over is not a change made by the program."""
        ctx = await PersistentContext.create(path)
        path.write_text('{"a": 2, "b": 3}', encoding="utf-8")
        async with ctx.transaction() as tx:
            await ctx.load()
            tx["a"] += 1

        assert {"a": 3, "b": 3} == dict(ctx)

    def test_a_forked_child(self, path, run):
        """A process that was forked inside a transaction is not inside it."""
        run(A_FORK, path)

        assert {"a": 1} == json.loads(path.read_text(encoding="utf-8"))
