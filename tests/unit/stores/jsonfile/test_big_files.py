"""A file of 1.5 MB, with 18,000 keys and some twenty pages: lazy processing inside does not change the results."""

import asyncio
import json
import re

import pytest

from persistent_context import PersistentContext, SyncPersistentContext

COUNT = 18_000
MIDDLE = "key-09000"


def value_of(number):
    """Return the value of a key, of each kind in turn."""
    kinds = (
        number,
        {"number": number, "text": f'value {number} \u2603 \\ " ,', "list": [number, None, True, {"x": 1.5}]},
        [{"a": number, "b": "x" * 150}, [], {}],
        "é" * 20 + f'",\n"key-{number}": {number}\n}}',
        number / 7,
        None if number % 2 else number % 4 == 0,
    )
    return kinds[number % len(kinds)]


def lines_of(data):
    """Return the lines of the file format, one for each key."""
    return [
        f"{json.dumps(key, ensure_ascii=False)}: {json.dumps(value, ensure_ascii=False)}" for key, value in data.items()
    ]


def document_of(data):
    """Return the text in the file format."""
    return "{\n" + ",\n".join(lines_of(data)) + "\n}\n"


def stored(path):
    """Return what any other program reads in the file."""
    return json.loads(path.read_text(encoding="utf-8"))


def in_turn(values, places):
    """Assign two of the places to each value, and the same number of values to each place."""
    return [(value, places[(number + turn) % len(places)]) for number, value in enumerate(values) for turn in (0, 1)]


@pytest.fixture(scope="module")
def document():
    """The text of the big file."""
    return document_of({f"key-{number:05d}": value_of(number) for number in range(COUNT)})


@pytest.fixture
def data(document):
    """The contents of the big file, as json reads them."""
    return json.loads(document)


@pytest.fixture
def big(path, document):
    """The big file."""
    path.write_text(document, encoding="utf-8", newline="")
    return path


@pytest.fixture
def ctx(face, big):
    """A context that has loaded the big file."""
    return face.open(big)


class TestReading:
    def test_it_is_big(self, big, data):
        """The file has the size that these tests need."""

        assert (True, COUNT) == (big.stat().st_size >= 1_350_000, len(data))

    def test_every_value_is_right(self, ctx, data):
        """Each key has the value that json reads."""

        assert [] == [key for key in data if json.dumps(ctx[key]) != json.dumps(data[key])]

    def test_every_value_is_right_in_any_order(self, ctx, data):
        """Reading the values backwards and twice gives the same."""
        keys = list(data)[::-7] + list(data)[::501]

        assert [] == [key for key in keys if ctx.get(key) != data[key] or ctx[key] is not ctx.get(key)]

    def test_the_order_is_right(self, ctx, data):
        """Keys come in the order of the file."""

        assert list(data) == list(ctx)

    def test_items_and_values_are_right(self, ctx, data):
        """Iteration yields decoded values."""

        assert (list(data.items()), list(data.values())) == (list(ctx.items()), list(ctx.values()))

    def test_membership_and_length(self, ctx):
        """len() and `in` need no values."""

        assert (COUNT, True, False, False) == (len(ctx), MIDDLE in ctx, "key-18000" in ctx, "number" in ctx)

    def test_absent_keys_are_absent(self, ctx):
        """A key inside a value is not a key of the document."""

        assert [None] * 4 == [ctx.get(key) for key in ("number", "text", "a", "x")]

    def test_get_all_data_is_everything(self, ctx, data):
        """The copy is complete and plain."""
        copy = ctx.get_all_data()

        assert (json.dumps(data), dict) == (json.dumps(copy), type(copy))

    def test_dict_of_a_context(self, ctx, data):
        """dict() of a context has decoded values."""

        assert data == dict(ctx)

    @pytest.mark.parametrize("reading", [
        dict,
        lambda live: {**live},
        lambda live: live | {},
        lambda live: live.copy(),
        lambda live: dict(live.items()),
        lambda live: dict(zip(live.keys(), live.values(), strict=True)),
        lambda live: {key: live.pop(key) for key in list(live)},
        lambda live: json.loads(json.dumps(live)),
    ], ids=["dict", "unpack", "or", "copy", "items", "values", "pop", "json"])  # fmt: skip
    def test_the_live_dictionary_reads_like_a_dict(self, ctx, data, reading):
        """No way of reading the live dictionary shows undecoded values."""

        assert data == reading(ctx._data)

    def test_the_live_dictionary_equals_a_plain_one(self, ctx, data):
        """Comparison works in both directions, and finds a difference in the last key."""
        other = data | {"key-17999": "other"}

        assert (True, True, False, False) == (
            ctx._data == data,
            data == ctx._data,
            ctx._data == other,
            other == ctx._data,
        )

    def test_nothing_is_unsaved_after_reading_everything(self, ctx):
        """Decoding a value is not a change."""
        dict(ctx)

        assert set() == ctx.unsaved_keys()

    def test_a_change_far_inside_is_found(self, ctx):
        """A change in place is found among 18,000 keys."""
        dict(ctx)
        ctx["key-09001"]["list"][3]["x"] = 2

        assert {"key-09001"} == ctx.unsaved_keys()


@pytest.mark.usefixtures("nobody_repairs_it")
class TestLayouts:
    @pytest.mark.parametrize("layout", [
        lambda text: json.dumps(json.loads(text), separators=(",", ":")),
        lambda text: json.dumps(json.loads(text), indent=2),
        lambda text: json.dumps(json.loads(text), indent=0),
        lambda text: json.dumps(json.loads(text), ensure_ascii=True),
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace(",\n", "\n,"),
        lambda text: re.sub(r'^("key-[0-9]+"): ', r"\1:\n", text, flags=re.MULTILINE),
        lambda text: "\ufeff" + text,
        lambda text: text.rstrip("\n"),
        lambda text: "\n" * 70_000 + text + " " * 70_000,
    ], ids=[
        "minified", "indented", "unindented", "ascii", "crlf", "comma-first", "broken", "bom", "no-last-line", "padded",
    ])  # fmt: skip
    def test_every_layout_is_read(self, face, path, document, layout):
        """A big file in any layout is read as json reads it, and a save keeps every value."""
        text = layout(document)
        path.write_text(text, encoding="utf-8", newline="")
        expected = json.loads(text.removeprefix("\ufeff"))
        ctx = face.open(path)
        read = ctx[MIDDLE], len(ctx), list(ctx)[-1]
        ctx.set(MIDDLE, "changed")
        face.do(ctx.save)

        assert ((expected[MIDDLE], COUNT, "key-17999"), document_of(expected | {MIDDLE: "changed"})) == (
            read,
            path.read_text(encoding="utf-8"),
        )

    @pytest.mark.parametrize(("bad", "place"), in_turn([
        "NaN", "1e400", '"\\ud800"', "1" * 250 + "e99", "[1,]", "01", '"\t"', "", "{1: 1}",
        "[" * 100_000 + "]" * 100_000,
        "nul", '"\\x41"', '{"a" 1}', "[1}", '"x', "1 2", "'x'", "-", "+1", '{"\\udc00": 1}', "[[NaN]]",
        '[{"a": Infinity}]', "[-1e999]", "\0", '"\x00"', "}", "]", "1}, {", '1}{"a": 1',
    ], ["first", "middle", "last"]), ids=lambda bad: ascii(bad)[:20])  # fmt: skip
    def test_one_bad_value_is_found_when_loading(self, path, document, bad, place):
        """A single bad value, wherever it is, makes the file corrupt at loading, not when the value is read."""
        lines = [*document.split("\n")[:4_000], '"end": 1', "}", ""]
        number = {"first": 1, "middle": 2_000, "last": 4_000}[place]
        key, _, _ = lines[number].partition(": ")
        lines[number] = f"{key}: {bad}" + ("," if place != "last" else "")
        path.write_text("\n".join(lines), encoding="utf-8", newline="")
        ctx = SyncPersistentContext.create(path)

        assert ({}, False, 1) == (dict(ctx), path.exists(), len(list(path.parent.glob("state.json.corrupt-*"))))

    @pytest.mark.parametrize("end", [700_000, -1, -2, -3, -4, -40])
    def test_a_truncated_file_is_found_when_loading(self, path, document, end):
        """A big file that ends too early is corrupt."""
        raw = document.encode().rstrip(b"\n") + b"\n" if end != -1 else document.encode().rstrip(b"\n")
        path.write_bytes(raw[:end])
        ctx = SyncPersistentContext.create(path)

        assert ({}, 1) == (dict(ctx), len(list(path.parent.glob("state.json.corrupt-*"))))

    def test_bad_bytes_are_found_when_loading(self, path, document):
        """An invalid UTF-8 byte in the middle of a big file makes it corrupt."""
        raw = bytearray(document.encode())
        raw[raw.index(b"x" * 150, len(raw) // 2)] = 0xFF
        path.write_bytes(raw)
        ctx = SyncPersistentContext.create(path)

        assert {} == dict(ctx)

    @pytest.mark.parametrize("spelling", ['"key-00000"', '"\\u006bey-00000"'], ids=["plain", "escaped"])
    def test_a_key_far_behind_its_double_wins(self, face, path, document, data, spelling):
        """A key repeated 18,000 lines later has the last value, and a single line after a save."""
        text = document.removesuffix("\n}\n") + f",\n{spelling}: 1,\n" + '"new": 1\n}\n'
        path.write_text(text, encoding="utf-8", newline="")
        ctx = face.open(path)
        read = ctx["key-00000"], len(ctx)
        ctx.set("new", 2)
        face.do(ctx.save)
        pairs = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=lambda pairs: pairs)

        assert ((1, COUNT + 1), COUNT + 1, data | {"key-00000": 1, "new": 2}) == (read, len(pairs), stored(path))


class TestWriting:
    def test_one_changed_key_keeps_the_others_byte_for_byte(self, face, ctx, big, document):
        """Saving one key changes one line."""
        ctx.set(MIDDLE, [1, {"é": "☃"}])
        face.do(ctx.save)
        lines = document.split("\n")
        lines[9_001] = f'"{MIDDLE}": [1, {{"é": "☃"}}],'

        assert lines == big.read_text(encoding="utf-8").split("\n")

    def test_one_changed_key_after_reading_everything(self, face, ctx, big, data):
        """After everything has been decoded, a save still leaves unchanged values as they were in the file."""
        dict(ctx)
        ctx.set(MIDDLE, 1)
        face.do(ctx.save)

        assert document_of(data | {MIDDLE: 1}) == big.read_text(encoding="utf-8")

    @pytest.mark.parametrize("key", ["key-00000", "key-17999"])
    def test_the_first_and_the_last_key(self, face, ctx, big, data, key):
        """The first and the last key are written like any other."""
        ctx.set(key, "changed")
        face.do(ctx.save)

        assert document_of(data | {key: "changed"}) == big.read_text(encoding="utf-8")

    @pytest.mark.parametrize("key", ["key-00000", MIDDLE, "key-17999"])
    def test_deleting_one_key(self, face, ctx, big, data, key):
        """Deleting one key removes one line."""
        del ctx[key]
        face.do(ctx.save)
        del data[key]

        assert document_of(data) == big.read_text(encoding="utf-8")

    def test_a_change_in_place(self, face, ctx, big, data):
        """A change in place of a lazily read value is saved."""
        for one in (ctx, data):
            one["key-09001"]["list"].append("late")
        face.do(ctx.save)

        assert document_of(data) == big.read_text(encoding="utf-8")

    def test_incr(self, face, ctx, big, data):
        """incr() in a big file changes one line."""
        result = face.do(ctx.incr, MIDDLE)

        assert (9_001, document_of(data | {MIDDLE: 9_001})) == (result, big.read_text(encoding="utf-8"))

    def test_mutate(self, face, ctx, big, data):
        """mutate() in a big file changes one line."""
        result = face.do(ctx.mutate, "key-09002", lambda value: value[:1])

        assert (data["key-09002"][:1], data | {"key-09002": result}) == (result, stored(big))

    def test_adding_many(self, face, ctx, big, data):
        """Thousands of new keys are appended in their order."""
        new = {f"new-{number}": [number] for number in range(5_000)}
        ctx.update(new)
        face.do(ctx.save)

        assert (document_of(data | new), set()) == (big.read_text(encoding="utf-8"), ctx.unsaved_keys())

    def test_changing_every_tenth(self, face, ctx, big, data):
        """Thousands of scattered changes are all written in place."""
        changes = {f"key-{number:05d}": -number for number in range(0, COUNT, 10)}
        ctx.update(changes)
        unsaved = ctx.unsaved_keys()
        face.do(ctx.save)

        assert (True, document_of(data | changes)) == (unsaved <= set(changes), big.read_text(encoding="utf-8"))

    def test_deleting_every_other(self, face, ctx, big, data):
        """Thousands of deletions leave the remaining keys unchanged."""
        for number in range(0, COUNT, 2):
            del ctx[f"key-{number:05d}"], data[f"key-{number:05d}"]
        face.do(ctx.save)

        assert (document_of(data), COUNT // 2) == (big.read_text(encoding="utf-8"), len(ctx))

    def test_clearing(self, face, ctx, big):
        """A big file can become an empty one."""
        ctx.clear()
        face.do(ctx.save)

        assert b"{}\n" == big.read_bytes()

    def test_nothing_to_write_writes_nothing(self, face, ctx, big):
        """A save without changes does not replace the big file."""
        before = big.stat().st_ino, big.stat().st_mtime_ns
        dict(ctx)
        face.do(ctx.save)

        assert before == (big.stat().st_ino, big.stat().st_mtime_ns)

    def test_a_transaction(self, face, ctx, big, data):
        """A transaction on a big file reads and writes the keys that it touches."""

        def body(tx):
            tx[MIDDLE] += 1
            del tx["key-00000"]
            tx["new"] = len(tx)

        face.inside(ctx.transaction, body)
        del data["key-00000"]

        assert document_of(data | {MIDDLE: 9_001, "new": COUNT - 1}) == big.read_text(encoding="utf-8")

    def test_one_value_of_many_megabytes(self, face, path):
        """A single value may make up most of the file."""
        huge = ["x" * 1000 + str(number) for number in range(5_000)]
        ctx = face.open(path)
        ctx.update(small=1, huge=huge, last=2)
        face.do(ctx.save)
        face.do(ctx.incr, "small")
        again = face.open(path)

        assert (document_of({"small": 2, "huge": huge, "last": 2}), huge) == (
            path.read_text(encoding="utf-8"),
            again["huge"],
        )

    def test_a_big_file_that_is_gone_is_written_whole(self, face, ctx, big, document):
        """After a big file is deleted, a save writes all of it, decoded or not."""
        big.unlink()
        face.do(ctx.save)

        assert document == big.read_text(encoding="utf-8")

    def test_a_big_file_that_became_corrupt_is_written_whole(self, face, ctx, big, data):
        """After a big file becomes corrupt, a save writes all of it, and the corrupt file is kept."""
        big.write_bytes(big.read_bytes()[:1_000_000])
        ctx.set("new", 1)
        face.do(ctx.save)

        assert (document_of(data | {"new": 1}), [1_000_000]) == (
            big.read_text(encoding="utf-8"),
            [one.stat().st_size for one in big.parent.glob("state.json.corrupt-*")],
        )


class TestMerging:
    def test_scattered_changes_of_another_context(self, face, ctx, big, data):
        """Another context's scattered changes are merged with this one's, in the file and in memory."""
        other = face.open(big)
        theirs = {f"key-{number:05d}": {"theirs": number} for number in range(0, COUNT, 1_000)}
        mine = {f"key-{number:05d}": {"mine": number} for number in range(500, COUNT, 1_000)}
        gone = [f"key-{number:05d}" for number in range(250, COUNT, 1_000)]
        other.update(theirs)
        for key in gone:
            del other[key], data[key]
        other.set("theirs", 1)
        face.do(other.save)
        ctx.update(mine)
        ctx.set("mine", 1)
        face.do(ctx.save)
        expected = data | theirs | {"theirs": 1} | mine | {"mine": 1}

        assert (document_of(expected), expected, set()) == (
            big.read_text(encoding="utf-8"),
            dict(ctx),
            ctx.unsaved_keys(),
        )

    def test_objects_stay_the_live_ones(self, face, ctx, big):
        """After a merge, all values are the same objects: what others changed is changed in place."""
        kept, changed = ctx["key-09001"], ctx["key-09007"]
        other = face.open(big)
        other["key-09007"]["number"] = "theirs"
        face.do(other.save)
        ctx.set(MIDDLE, 1)
        face.do(ctx.save)

        assert (True, True, "theirs") == (
            kept is ctx["key-09001"],
            changed is ctx["key-09007"],
            ctx["key-09007"]["number"],
        )

    def test_conflicts_are_found_among_many(self, face, big):
        """For a conflict in one of 18,000 keys, the function is called once."""
        asked = []

        def decide(*question):
            asked.append(question)
            return "decided"

        ctx, other = face.open(big, on_conflict=decide), face.open(big)
        other.update({"key-00000": "theirs", MIDDLE: "theirs"})
        ctx.update({MIDDLE: "mine", "key-17999": "mine"})
        face.do(other.save)
        face.do(ctx.save)

        assert ([(MIDDLE, 9_000, "mine", "theirs")], ["theirs", "decided", "mine"]) == (
            asked,
            [stored(big)[key] for key in ("key-00000", MIDDLE, "key-17999")],
        )

    def test_a_file_that_another_program_reformatted(self, face, ctx, big, data):
        """Reformatting a big file does not count as a change."""
        big.write_text(json.dumps(data, indent=1, ensure_ascii=True), encoding="utf-8")
        kept = ctx["key-09001"]
        ctx.set(MIDDLE, 1)
        face.do(ctx.save)

        assert (document_of(data | {MIDDLE: 1}), True, set()) == (
            big.read_text(encoding="utf-8"),
            kept is ctx["key-09001"],
            ctx.unsaved_keys(),
        )

    def test_a_file_that_another_program_sorted_the_other_way(self, face, ctx, big, data):
        """Keys in another order do not count as changed."""
        backwards = dict(reversed(data.items()))
        big.write_text(document_of(backwards), encoding="utf-8")
        ctx.set(MIDDLE, 1)
        face.do(ctx.save)

        assert document_of(backwards | {MIDDLE: 1}) == big.read_text(encoding="utf-8")

    async def test_many_tasks_count_in_a_big_file(self, big, data):
        """Increments by many tasks in a big file all count."""
        contexts = [await PersistentContext.create(big) for _ in range(3)]
        numbers = await asyncio.gather(*(contexts[number % 3].incr("n") for number in range(60)))

        assert (list(range(1, 61)), data | {"n": 60}) == (sorted(numbers), stored(big))

    async def test_memory_may_be_changed_while_a_big_save_runs(self, big, data):
        """Changing the dictionary during a save does not break the save, and the change is not lost."""
        ctx = await PersistentContext.create(big)
        ctx.set(MIDDLE, "saved")
        saving = asyncio.create_task(ctx.save())
        changes = {}
        while not saving.done():
            await asyncio.sleep(0)
            key = f"new-{len(changes)}"
            if len(changes) < 1_000:
                changes[key] = [len(changes)]
                ctx.set(key, changes[key])
                ctx.pop(f"key-{len(changes):05d}")
        await saving
        first = stored(big)
        await ctx.save()
        expected = data | {MIDDLE: "saved"}
        for number in range(len(changes)):
            del expected[f"key-{number + 1:05d}"]

        assert (data | {MIDDLE: "saved"}, expected | changes) == (first, stored(big))
