"""Contexts with runtime variables over persistent data."""

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from persistent_context import PersistentContext
from persistent_context.runtime import Context, ContextManager


@pytest.fixture
def stored(path):
    """A file with a cursor and a list."""
    path.write_text('{"cursor": 7, "jobs": ["a"]}', encoding="utf-8")
    return path


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


class TestCreating:
    async def test_it_holds_the_persistent_data_and_the_variables(self, stored):
        """A context has what the file holds, what it was created with, and the persistent context itself."""
        client = object()
        context = await ContextManager(stored).create_context(client=client)

        assert (7, ["a"], client) == (context["cursor"], context["jobs"], context["client"])
        assert isinstance(context["persistent_context"], PersistentContext)
        assert ["persistent_context", "client", "cursor", "jobs"] == list(context)
        assert 4 == len(context)

    async def test_a_missing_file_has_no_keys(self, path):
        """Without a file there are the variables."""
        assert ["persistent_context", "a"] == list(await ContextManager(path).create_context(a=1))

    async def test_options_are_those_of_the_persistent_context(self, path):
        """The manager hands its options on."""
        with pytest.raises(ValueError, match="lock_timeout"):
            await ContextManager(path, lock_timeout=-1).create_context()

    async def test_the_name_of_the_persistent_context_is_taken(self, path):
        """No variable takes its place, neither at the beginning nor later."""
        context = await ContextManager(path).create_context()
        with pytest.raises(ValueError, match="persistent_context"):
            await ContextManager(path).create_context(persistent_context=1)
        with pytest.raises(ValueError, match="persistent_context"):
            context.fork(persistent_context=1)
        with pytest.raises(ValueError, match="persistent_context"):
            context["persistent_context"] = 1
        with pytest.raises(ValueError, match="persistent_context"):
            del context["persistent_context"]


class TestSetting:
    async def test_a_persistent_key_is_set_where_it_lives(self, stored):
        """What was persistent stays persistent, and is saved."""
        context = await ContextManager(stored).create_context()
        context["cursor"] += 1
        context["jobs"].append("b")
        await context["persistent_context"].save()

        assert {"cursor": 8, "jobs": ["a", "b"]} == read(stored)

    async def test_variables_are_never_saved(self, stored):
        """Neither those it was created with nor new ones get into the file, whatever they hold."""
        context = await ContextManager(stored).create_context(client=object())
        context["new"] = object()
        context["client"] = object()
        await context["persistent_context"].save()

        assert {"cursor": 7, "jobs": ["a"]} == read(stored)
        assert set() == context["persistent_context"].unsaved_keys()

    async def test_a_new_key_is_made_persistent_on_purpose(self, stored):
        """What is set in the persistent context is seen in the context, and set there from then on."""
        context = await ContextManager(stored).create_context()
        context["persistent_context"]["total"] = 1
        context["total"] += 1
        await context["persistent_context"].save()

        assert 2 == read(stored)["total"] == context["total"]

    async def test_a_variable_hides_a_persistent_key(self, stored):
        """Setting it does not touch the file; deleting it shows what it hid."""
        context = await ContextManager(stored).create_context(cursor="mine")
        context["cursor"] = "still mine"
        await context["persistent_context"].save()
        hidden = context["cursor"]
        del context["cursor"]

        assert ("still mine", 7, 7) == (hidden, context["cursor"], read(stored)["cursor"])

    async def test_deleting(self, stored):
        """A persistent key is deleted where it lives; one that is nowhere is a KeyError."""
        context = await ContextManager(stored).create_context(a=1)
        del context["cursor"], context["a"]
        await context["persistent_context"].save()

        assert {"jobs": ["a"]} == read(stored)
        assert not {"cursor", "a"} & set(context)
        with pytest.raises(KeyError):
            del context["a"]
        with pytest.raises(KeyError):
            context["a"]


class TestForking:
    async def test_a_fork_has_its_own_variables(self, stored):
        """It sees those of its parent, and what it sets is seen by itself alone."""
        parent = await ContextManager(stored).create_context(name="parent", depth=0)
        child = parent.fork(name="child")
        child["depth"] = 1
        grandchild = child.fork()
        parent["later"] = True

        assert ("parent", 0) == (parent["name"], parent["depth"])
        assert ("child", 1, True) == (grandchild["name"], grandchild["depth"], grandchild["later"])
        assert {"persistent_context", "name", "depth", "later", "cursor", "jobs"} == set(child)

    async def test_a_fork_has_the_same_persistent_data(self, stored):
        """Subtasks that run at once share the persistent context."""
        parent = await ContextManager(stored).create_context()

        async def work(context):
            context["cursor"] += context["step"]
            await context["persistent_context"].incr("done")

        await asyncio.gather(*(work(parent.fork(step=step)) for step in (1, 2, 3)))
        await parent["persistent_context"].save()

        assert (13, 3) == (parent["cursor"], parent["done"])
        assert {"cursor": 13, "jobs": ["a"], "done": 3} == read(stored)

    async def test_a_fork_deletes_nothing_of_its_parent(self, path):
        """A variable of the parent stays."""
        parent = await ContextManager(path).create_context(a=1)
        with pytest.raises(KeyError, match="forked from"):
            del parent.fork()["a"]

        assert 1 == parent["a"]


class TestMapping:
    async def test_it_is_a_mapping(self, stored):
        """``in``, ``get`` and ``items`` go over all names."""
        context: Context = (await ContextManager(stored).create_context(a=1)).fork(b=2)

        assert (True, True, True, True, False) == tuple(
            name in context for name in ("a", "b", "cursor", "persistent_context", "nope")
        )
        assert (1, 0) == (context.get("a"), context.get("nope", 0))
        assert {"persistent_context", "a", "b", "cursor", "jobs"} == set(context.keys())
        assert "<Context with a, b over <PersistentContext" == repr(context).rpartition(" on ")[0]


class TestTheGuide:
    def test_its_example_runs(self, tmp_path):
        """What docs/tasks.md shows does what it says."""
        guide = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text(encoding="utf-8")
        (example,) = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
        (said,) = re.findall(r"It prints `(.*?)`", guide)
        told = subprocess.run(
            [sys.executable, "-W", "error", "-c", example], cwd=tmp_path, check=True, capture_output=True, text=True
        )

        assert said == told.stdout.strip()
        assert {"cursor": 4, "seen": 8} == read(tmp_path / "state" / "run.json")
