"""A save writes memory as it is at the call: changes made while it is in flight stay unsaved."""

import asyncio
import json

import pytest

from persistent_context import PersistentContext


def stored(path):
    """Return what any other program reads in the file."""
    return json.loads(path.read_text(encoding="utf-8"))


async def turns(count=50):
    """Let every other task run until it waits for something external."""
    for _ in range(count):
        await asyncio.sleep(0)


class TestTheSnapshot:
    async def test_a_change_during_the_save_stays_unsaved(self, path):
        """A save writes what memory held at the call, and later changes stay unsaved."""
        ctx = await PersistentContext.create(path)
        ctx.set("a", 1)
        saving = asyncio.create_task(ctx.save())
        await asyncio.sleep(0)
        ctx.set("a", 2)
        await saving

        assert ({"a": 1}, 2, {"a"}) == (stored(path), ctx.get("a"), ctx.unsaved_keys())

    async def test_a_change_while_another_program_holds_the_lock(self, path, hold):
        """The snapshot is taken at the call, however long the save waits."""
        path.write_text('{"a": 0, "jobs": [1], "gone": 1, "kept": 1}', encoding="utf-8")
        ctx = await PersistentContext.create(path)
        ctx.set("a", 1)
        with hold(path):
            saving = asyncio.create_task(ctx.save())
            await turns()
            ctx.set("a", 2)
            ctx["jobs"].append(2)
            del ctx["gone"]
            ctx.set("new", 1)
        await saving

        assert ({"a": 1, "jobs": [1], "gone": 1, "kept": 1}, {"a", "jobs", "gone", "new"}) == (
            stored(path),
            ctx.unsaved_keys(),
        )

    async def test_memory_keeps_the_changes_made_during_the_save(self, path, hold):
        """Changes made during the save are still in memory, and so are those that others wrote."""
        path.write_text('{"a": 0, "jobs": [1], "gone": 1}', encoding="utf-8")
        ctx = await PersistentContext.create(path)
        jobs = ctx["jobs"]
        ctx.set("a", 1)
        with hold(path):
            saving = asyncio.create_task(ctx.save())
            await turns()
            jobs.append(2)
            del ctx["gone"]
            path.write_text('{"a": 0, "jobs": [1], "gone": 1, "theirs": 1}', encoding="utf-8")
        await saving

        assert ({"a": 1, "jobs": [1, 2], "theirs": 1}, True) == (dict(ctx), jobs is ctx["jobs"])

    async def test_an_item_appended_during_the_save_equals_one_that_others_appended(self, path, hold):
        """The item is unsaved, although the file has the same list as memory when the save is over."""
        path.write_text('{"jobs": [1]}', encoding="utf-8")
        ctx = await PersistentContext.create(path)
        ctx["jobs"].append("same")
        with hold(path):
            saving = asyncio.create_task(ctx.save())
            await turns()
            ctx["jobs"].append("same")
            path.write_text('{"jobs": [1, "same"]}', encoding="utf-8")
        await saving

        assert ([1, *["same"] * 3], {"jobs"}) == (ctx["jobs"], ctx.unsaved_keys())

        await ctx.save()

        assert [1, *["same"] * 3] == stored(path)["jobs"]

    async def test_the_changes_made_during_the_save_are_saved_by_the_next(self, path, hold):
        """The next save writes the changes made during the first."""
        path.write_text('{"a": 0, "jobs": [1], "gone": 1}', encoding="utf-8")
        ctx = await PersistentContext.create(path)
        ctx.set("a", 1)
        with hold(path):
            saving = asyncio.create_task(ctx.save())
            await turns()
            ctx["jobs"].append(2)
            del ctx["gone"]
        await saving
        await ctx.save()

        assert ({"a": 1, "jobs": [1, 2]}, set()) == (stored(path), ctx.unsaved_keys())

    async def test_a_change_undone_during_the_save_is_unsaved(self, path, hold):
        """Going back to the old value during the save is a change from the written one."""
        path.write_text('{"a": 0}', encoding="utf-8")
        ctx = await PersistentContext.create(path)
        ctx.set("a", 1)
        with hold(path):
            saving = asyncio.create_task(ctx.save())
            await turns()
            ctx.set("a", 0)
        await saving

        assert ({"a": 1}, 0, {"a"}) == (stored(path), ctx.get("a"), ctx.unsaved_keys())

    async def test_a_change_during_the_save_of_a_key_that_others_changed(self, path, hold):
        """A change made during the save wins, in memory, over what others wrote to that key."""
        path.write_text('{"a": 0, "b": 0}', encoding="utf-8")
        ctx = await PersistentContext.create(path)
        ctx.set("a", 1)
        with hold(path):
            saving = asyncio.create_task(ctx.save())
            await turns()
            ctx.set("b", "mine")
            path.write_text('{"a": 0, "b": "theirs"}', encoding="utf-8")
        await saving

        assert ({"a": 1, "b": "theirs"}, "mine", {"b"}) == (stored(path), ctx.get("b"), ctx.unsaved_keys())

    async def test_a_key_added_before_and_deleted_during_the_save_is_unsaved(self, path, hold):
        """A key that the save writes and the program then deletes stays deleted in memory, unsaved."""
        path.write_text('{"a": 0}', encoding="utf-8")
        ctx = await PersistentContext.create(path)
        ctx.set("b", 1)
        with hold(path):
            saving = asyncio.create_task(ctx.save())
            await turns()
            del ctx["b"]
        await saving

        assert ({"a": 0, "b": 1}, False, {"b"}) == (stored(path), "b" in ctx, ctx.unsaved_keys())

    async def test_a_change_in_place_undone_during_the_save_is_unsaved(self, path, hold):
        """Undoing a change in place during the save is a change from the written value."""
        path.write_text('{"jobs": [1]}', encoding="utf-8")
        ctx = await PersistentContext.create(path)
        jobs = ctx["jobs"]
        jobs.append(2)
        with hold(path):
            saving = asyncio.create_task(ctx.save())
            await turns()
            jobs.pop()
        await saving

        assert ({"jobs": [1, 2]}, [1], {"jobs"}, True) == (stored(path), jobs, ctx.unsaved_keys(), jobs is ctx["jobs"])

    async def test_two_saves_at_once_write_both_snapshots(self, path):
        """Two overlapping saves leave nothing unsaved."""
        ctx = await PersistentContext.create(path)
        ctx.set("a", 1)
        first = asyncio.create_task(ctx.save())
        await asyncio.sleep(0)
        ctx.set("b", 2)
        second = asyncio.create_task(ctx.save())
        await asyncio.gather(first, second)

        assert ({"a": 1, "b": 2}, set()) == (stored(path), ctx.unsaved_keys())

    async def test_many_saves_at_once_end_with_the_last_value(self, path):
        """However many saves run at once, the file ends with the newest value."""
        ctx = await PersistentContext.create(path)
        savings = []
        for number in range(20):
            ctx.set("a", number)
            savings.append(asyncio.create_task(ctx.save()))
            await asyncio.sleep(0)
        await asyncio.gather(*savings)

        assert ({"a": 19}, set()) == (stored(path), ctx.unsaved_keys())

    async def test_many_contexts_at_once_lose_nothing(self, path):
        """Concurrent saves of many contexts are merged."""
        contexts = [await PersistentContext.create(path) for _ in range(20)]
        for number, ctx in enumerate(contexts):
            ctx.set(f"key-{number}", number)
        await asyncio.gather(*(ctx.save() for ctx in contexts))

        assert {f"key-{number}": number for number in range(20)} == stored(path)


class TestALoadBesideASave:
    """A load replaces memory while a save of it is in flight."""

    @pytest.mark.parametrize("value", [{"a": 1}, [1]], ids=["object", "list"])
    async def test_the_next_save_deletes_nothing(self, path, hold, value):
        """What the first save has saved is not a deletion of what was loaded before."""
        path.write_text(json.dumps({"v": value}), encoding="utf-8")
        ctx = await PersistentContext.create(path)
        if isinstance(value, list):
            ctx["v"].append("saved")
        else:
            ctx["v"]["saved"] = 2
        with hold(path):
            saving = asyncio.create_task(ctx.save())
            await turns()
            await ctx.load()
            if isinstance(value, list):
                ctx["v"].append("later")
            else:
                ctx["v"]["later"] = 3
        await saving
        await ctx.save()

        expected = [1, "saved", "later"] if isinstance(value, list) else {"a": 1, "saved": 2, "later": 3}
        assert {"v": expected} == stored(path) == dict(ctx)


class TestASaveThatComesToNothing:
    async def test_a_later_change_of_another_place_is_saved(self, path, hold):
        """Their value stays where the first save gave way, also for the second save, made before the first is over."""
        path.write_text('{"o": {"x": 1, "y": 1}}', encoding="utf-8")
        ctx = await PersistentContext.create(path, on_conflict="theirs")
        ctx["o"]["x"] = "mine"
        with hold(path):
            path.write_text('{"o": {"x": "theirs", "y": 1}}', encoding="utf-8")
            first = asyncio.create_task(ctx.save())
            await turns()
            ctx["o"]["y"] = "later"
            second = asyncio.create_task(ctx.save())
            await turns()
        await asyncio.gather(first, second)

        assert {"o": {"x": "theirs", "y": "later"}} == stored(path) == dict(ctx)
