"""Contexts that combine runtime variables and persistent data."""

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from persistent_context import Change, ContextUsageError, PersistentContext
from persistent_context.runtime import Context, ContextManager


@pytest.fixture
def stored(path):
    """A file with a cursor and a list."""
    path.write_text('{"cursor": 7, "jobs": ["a"]}', encoding="utf-8")
    return path


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


async def set_persistent(context, key):
    context.set_persistent(key, 1)


class TestCreating:
    async def test_it_holds_the_persistent_data_and_the_variables(self, stored):
        """A context has what is in the file, the variables it was created with, and the persistent context itself."""
        client = object()
        context = await ContextManager(stored).create_context(client=client)

        assert (7, ["a"], client) == (context["cursor"], context["jobs"], context["client"])
        assert isinstance(context["persistent_context"], PersistentContext)
        assert ["persistent_context", "client", "cursor", "jobs"] == list(context)
        assert 4 == len(context)

    async def test_a_missing_file_has_no_keys(self, path):
        """Without a file there are only the variables."""
        assert ["persistent_context", "a"] == list(await ContextManager(path).create_context(a=1))

    async def test_options_are_those_of_the_persistent_context(self, path):
        """The manager passes its options to the persistent context."""
        with pytest.raises(ValueError, match="lock_timeout"):
            await ContextManager(path, lock_timeout=-1).create_context()

    async def test_the_name_of_the_persistent_context_is_taken(self, path):
        """No variable can replace the persistent context, neither at creation nor later."""
        context = await ContextManager(path).create_context()
        with pytest.raises(ValueError, match="persistent_context"):
            await ContextManager(path).create_context(persistent_context=1)
        with pytest.raises(ValueError, match="persistent_context"):
            context.fork(persistent_context=1)
        with pytest.raises(ValueError, match="persistent_context"):
            context["persistent_context"] = 1
        with pytest.raises(ValueError, match="persistent_context"):
            del context["persistent_context"]


class TestDeclaring:
    @pytest.mark.parametrize(
        ("names", "error"),
        [("jobs", TypeError), ([1], TypeError), (["a", "persistent_context"], ValueError)],
        ids=repr,
    )
    def test_what_cannot_be_declared(self, path, names, error):
        """A single string is not accepted as a list of letters."""
        with pytest.raises(error, match="persistent"):
            ContextManager(path, persistent=names)

    async def test_a_declared_name_persists_before_the_file_has_it(self, path):
        """A declared name is saved, even if the file does not have it yet."""
        context = await ContextManager(path, persistent=["cursor", "jobs"]).create_context()
        before = (context.get("cursor"), "cursor" in context)
        context["cursor"] = 1
        context.setdefault("jobs", []).append("a")
        await context.save()

        assert (None, False) == before
        assert {"cursor": 1, "jobs": ["a"]} == read(path)

    async def test_a_declared_name_persists_after_the_file_has_lost_it(self, stored):
        """A declared name does not become a variable when another program deletes its key."""
        context = await ContextManager(stored, persistent=["cursor"]).create_context()
        stored.write_text("{}", encoding="utf-8")
        await context.load()
        context["cursor"] = 8
        await context.save()

        assert {"cursor": 8} == read(stored)

    async def test_no_variable_has_a_declared_name(self, path):
        """A variable with a declared name would hide the persistent value, so it is refused."""
        manager = ContextManager(path, persistent=["cursor"])
        with pytest.raises(ValueError, match="'cursor' is declared persistent"):
            await manager.create_context(cursor=1)
        with pytest.raises(ValueError, match="'cursor' is declared persistent"):
            (await manager.create_context()).fork(cursor=1)

    async def test_a_declared_name_is_deleted_where_it_lives(self, stored):
        """Deleting a declared name is saved; deleting a missing one raises KeyError."""
        context = await ContextManager(stored, persistent=["cursor"]).create_context()
        del context["cursor"]
        await context.save()

        assert {"jobs": ["a"]} == read(stored)
        with pytest.raises(KeyError):
            del context["cursor"]


class TestUndeclaredNames:
    async def test_variables_are_never_saved(self, stored):
        """Variables are not written to the file, whether set at creation or later, whatever they hold."""
        context = await ContextManager(stored).create_context(client=object())
        context["new"] = object()
        context["client"] = object()
        await context.save()

        assert {"cursor": 7, "jobs": ["a"]} == read(stored)
        assert set() == context.unsaved_keys()

    async def test_what_the_file_has_is_read(self, stored):
        """Values from the file are live: changes in place are saved."""
        context = await ContextManager(stored).create_context()
        context["jobs"].append("b")
        await context.save()

        assert (7, ["a", "b"]) == (context["cursor"], read(stored)["jobs"])

    async def test_what_the_file_has_is_neither_hidden_nor_saved_by_accident(self, stored):
        """Setting or deleting a key of the file is refused, and so is creating a variable with its name."""
        manager = ContextManager(stored)
        context = await manager.create_context()
        with pytest.raises(ContextUsageError, match=r"persistent=\['cursor'\]"):
            context["cursor"] = 8
        with pytest.raises(ContextUsageError, match="set_persistent"):
            del context["cursor"]
        with pytest.raises(ContextUsageError, match="'cursor' is in the persistent data"):
            context.fork(cursor=1)
        with pytest.raises(ContextUsageError, match=str(stored)):
            await manager.create_context(cursor=1)

        assert (7, set()) == (context["cursor"], context.unsaved_keys())

    async def test_a_variable_remains_one(self, path):
        """A variable stays one, in forks too, even if another program adds a key with its name."""
        context = await ContextManager(path).create_context(step=1)
        path.write_text('{"step": "theirs"}', encoding="utf-8")
        await context.load()
        child = context.fork(step=3)
        context["step"] += 1
        child["step"] += 1
        await context.save()

        assert (2, 4, {"step": "theirs"}) == (context["step"], child["step"], read(path))
        del child["step"]
        assert 2 == child["step"]

    async def test_deleting_a_variable(self, path):
        """A deleted variable is gone; deleting a missing one raises KeyError."""
        context = await ContextManager(path).create_context(a=1)
        del context["a"]
        with pytest.raises(KeyError):
            del context["a"]
        with pytest.raises(KeyError):
            context["a"]


class TestThePersistentData:
    async def test_a_name_that_is_known_only_at_run_time(self, path):
        """set_persistent() sets a key explicitly; it is seen at the top level, and saved."""
        context = await ContextManager(path).create_context()
        context.set_persistent("job-7", "queued")
        seen = context["job-7"], context.unsaved_keys()
        await context.save()

        assert ("queued", {"job-7"}) == seen
        assert {"job-7": "queued"} == read(path)

    async def test_the_calls_of_the_persistent_context(self, stored):
        """Every call does the same as that of the persistent context."""
        context = await ContextManager(stored, journal=True).create_context()
        results = [
            await context.incr("n", 2, 5),
            await context.add("cursor", 1),
            await context.compare_and_set("cursor", 7, 8),
            await context.mutate("jobs", lambda jobs: [*jobs, "b"]),
            await context.mutate("more", lambda more: [*more, 1], []),
            await context.append("list", 1),
            await context.extend("list", [2, 3]),
            await context.take("list"),
            await context.delete("list"),
            await context.compute_once("once", lambda: 5),
        ]
        async with context.lease("job") as lease:
            results.append(lease.name)
        watch = context.watch("n")
        async with context.transaction(timeout=5) as tx:
            tx["cursor"] += 1
        other = await PersistentContext.create(stored)
        await other.incr("n")
        changes = await anext(watch)
        await watch.aclose()
        await context.refresh()
        seen = context["n"]
        await context.load()
        await context.checkpoint()

        assert [7, False, True, ["a", "b"], [1], 1, 3, [1, 2, 3], False, 5, "job"] == results
        assert 8 == seen
        assert {"n": Change(7, 8)} == changes
        assert {"cursor": 9, "jobs": ["a", "b"], "n": 8, "more": [1], "once": 5} == read(stored)

    @pytest.mark.parametrize(
        "call",
        [
            lambda context, key: context.incr(key),
            lambda context, key: context.add(key, 1),
            lambda context, key: context.compare_and_set(key, 1, 2),
            lambda context, key: context.mutate(key, lambda _: 1),
            lambda context, key: context.delete(key),
            lambda context, key: context.take(key),
            lambda context, key: context.append(key, 1),
            lambda context, key: context.extend(key, [1]),
            lambda context, key: context.compute_once(key, dict),
            set_persistent,
        ],
        ids=[
            "incr",
            "add",
            "compare_and_set",
            "mutate",
            "delete",
            "take",
            "append",
            "extend",
            "compute_once",
            "set_persistent",
        ],  # fmt: skip
    )
    async def test_no_call_changes_what_a_variable_hides(self, path, call):
        """A call whose result a variable would hide is refused, in forks as well."""
        context = (await ContextManager(path).create_context(a=1)).fork()
        with pytest.raises(ContextUsageError, match="'a' is a runtime variable"):
            await call(context, "a")
        with pytest.raises(ValueError, match="reserved"):
            await call(context, "persistent_context")

        assert not path.exists()


class TestNames:
    async def test_a_name_must_be_a_string(self, path):
        """It is refused when it is set, and not when it is shown."""
        context = await ContextManager(path).create_context()
        with pytest.raises(TypeError, match="a name must be a str, not int"):
            context[5] = 1

        assert "no variables" in repr(context)


class TestForking:
    async def test_a_fork_has_its_own_variables(self, stored):
        """A fork sees its parent's variables; those that it sets are its own."""
        parent = await ContextManager(stored).create_context(name="parent", depth=0)
        child = parent.fork(name="child")
        child["depth"] = 1
        grandchild = child.fork()
        parent["later"] = True

        assert ("parent", 0) == (parent["name"], parent["depth"])
        assert ("child", 1, True) == (grandchild["name"], grandchild["depth"], grandchild["later"])
        assert {"persistent_context", "name", "depth", "later", "cursor", "jobs"} == set(child)

    async def test_a_fork_has_the_same_persistent_data(self, stored):
        """Concurrent subtasks share the persistent context."""
        parent = await ContextManager(stored, persistent=["cursor"]).create_context()

        async def work(context):
            context["cursor"] += context["step"]
            await context.incr("done")

        await asyncio.gather(*(work(parent.fork(step=step)) for step in (1, 2, 3)))
        await parent.save()

        assert (13, 3) == (parent["cursor"], parent["done"])
        assert {"cursor": 13, "jobs": ["a"], "done": 3} == read(stored)

    async def test_a_fork_deletes_nothing_of_its_parent(self, path):
        """A fork cannot delete a variable of its parent."""
        parent = await ContextManager(path).create_context(a=1)
        with pytest.raises(ContextUsageError, match="'a' belongs to the context that this one was forked from"):
            del parent.fork()["a"]
        with pytest.raises(ContextUsageError, match="forked from"):
            parent.fork().pop("a", None)

        assert 1 == parent["a"]

    @pytest.mark.parametrize("method", ["clear", "popitem"])
    async def test_names_are_deleted_one_by_one(self, stored, method):
        """Methods that would delete any name are refused, and say what to use."""
        context = await ContextManager(stored).create_context(a=1)
        with pytest.raises(ContextUsageError, match=rf"{method}\(\) is not possible.*persistent_context'\]\.{method}"):
            getattr(context, method)()

        assert {"persistent_context", "a", "cursor"} <= set(context)

    async def test_the_file_is_known(self, stored):
        """What the persistent context says about its file, it says here as well."""
        context = await ContextManager(stored).create_context()
        await context.incr("n")

        assert context.statistics() == context["persistent_context"].statistics()
        assert await context.lock_holder() is None


class TestMapping:
    async def test_it_is_a_mapping(self, stored):
        """``in``, ``get`` and ``items`` cover all names."""
        context: Context = (await ContextManager(stored).create_context(a=1)).fork(b=2)

        assert (True, True, True, True, False) == tuple(
            name in context for name in ("a", "b", "cursor", "persistent_context", "nope")
        )
        assert (1, 0) == (context.get("a"), context.get("nope", 0))
        assert {"persistent_context", "a", "b", "cursor", "jobs"} == set(context.keys())
        assert "<Context with a, b over <PersistentContext" == repr(context).rpartition(" on ")[0]


class TestTheGuide:
    def test_its_example_runs(self, tmp_path):
        """The example in docs/tasks.md runs as described."""
        guide = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text(encoding="utf-8")
        (example,) = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
        (said,) = re.findall(r"It prints `(.*?)`", guide)
        told = subprocess.run(
            [sys.executable, "-W", "error", "-c", example], cwd=tmp_path, check=True, capture_output=True, text=True
        )

        assert said == told.stdout.strip()
        assert {"cursor": 4, "seen": 8} == read(tmp_path / "state" / "tasks.json")
