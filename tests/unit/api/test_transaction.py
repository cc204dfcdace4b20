"""Transactions: all or nothing, usable as mappings, and including the unsaved changes of the keys that they touch."""

import json
import logging
import socket
from collections.abc import MutableMapping

import pytest

from persistent_context import (
    ContextUsageError,
    Holder,
    LockTimeoutError,
    SyncPersistentContext,
    UnsavedInTransactionWarning,
    UnserializableValueError,
)


def stored(path):
    """Return what any other program reads in the file."""
    return json.loads(path.read_text(encoding="utf-8"))


def identity(path):
    """Return what distinguishes one write of a file from another."""
    status = path.stat()
    return status.st_ino, status.st_mtime_ns, path.read_bytes()


@pytest.fixture
def ctx(face, path):
    """A loaded context over a small file."""
    path.write_text('{\n"a": 100,\n"b": 0,\n"jobs": [1]\n}\n', encoding="utf-8")
    return face.open(path)


class TestCommit:
    def test_a_clean_exit_commits(self, face, ctx, path):
        """The changes of the body are in the file and in memory, saved."""

        def body(tx):
            tx["a"] -= 10
            tx["b"] += 10

        face.inside(ctx.transaction, body)
        expected = {"a": 90, "b": 10, "jobs": [1]}

        assert (expected, expected, set()) == (stored(path), dict(ctx), ctx.unsaved_keys())

    def test_new_and_deleted_keys(self, face, ctx, path):
        """A transaction can add and delete keys."""

        def body(tx):
            tx["new"] = {"x": 1}
            del tx["b"]

        face.inside(ctx.transaction, body)
        expected = {"a": 100, "jobs": [1], "new": {"x": 1}}

        assert (expected, expected) == (stored(path), dict(ctx))

    def test_a_change_in_place_commits(self, face, ctx, path):
        """A change in place needs no assignment."""
        face.inside(ctx.transaction, lambda tx: tx["jobs"].append(2))

        assert ([1, 2], [1, 2], set()) == (stored(path)["jobs"], ctx["jobs"], ctx.unsaved_keys())

    def test_a_change_in_place_of_what_get_returned(self, face, ctx, path):
        """A change in place counts, however the value was obtained."""
        face.inside(ctx.transaction, lambda tx: dict(tx.items())["jobs"].append(2))

        assert [1, 2] == stored(path)["jobs"]

    def test_a_change_in_place_of_what_was_set(self, face, ctx, path):
        """A value that the body has set may be changed afterwards."""

        def body(tx):
            value = []
            tx["list"] = value
            value.append(1)

        face.inside(ctx.transaction, body)

        assert [1] == stored(path)["list"]

    def test_it_makes_a_missing_file(self, face, path):
        """A transaction can create the file."""
        ctx = face.open(path)
        face.inside(ctx.transaction, lambda tx: tx.update(a=1))

        assert b'{\n"a": 1\n}\n' == path.read_bytes()

    def test_the_body_reads_its_own_writes(self, face, ctx):
        """The body reads the values that it has set."""

        def body(tx):
            tx["a"] = 5
            del tx["b"]
            return tx["a"], tx.get("b"), "b" in tx, sorted(tx)

        assert (5, None, False, ["a", "jobs"]) == face.inside(ctx.transaction, body)

    def test_the_body_sees_what_others_committed(self, face, ctx, path):
        """The body sees the values in the file, not those in this context's memory."""
        other = face.open(path)
        other.update(a=7, new=1)
        del other["b"]
        face.do(other.save)

        assert {"a": 7, "jobs": [1], "new": 1} == face.inside(ctx.transaction, dict)

    def test_what_others_committed_is_kept(self, face, ctx, path):
        """A commit writes only what the body changed."""
        other = face.open(path)
        other.set("new", 1)
        face.do(other.save)
        face.inside(ctx.transaction, lambda tx: tx.update(a=1))

        assert {"a": 1, "b": 0, "jobs": [1], "new": 1} == stored(path)

    def test_one_after_the_other(self, face, ctx, path):
        """A context may run any number of transactions, one after the other."""
        for _ in range(5):
            face.inside(ctx.transaction, lambda tx: tx.update(a=tx["a"] - 1))

        assert 95 == stored(path)["a"]

    def test_the_corrupt_file_is_moved_aside(self, face, ctx, path, caplog):
        """A transaction on a corrupt file starts from an empty document, and the corrupt file is kept."""
        path.write_bytes(b'{"a": ')
        seen = face.inside(ctx.transaction, lambda tx: (dict(tx), tx.update(new=1))[0])
        aside = [one.read_bytes() for one in path.parent.glob("state.json.corrupt-*")]

        assert ({}, {"new": 1}, [b'{"a": '], True) == (
            seen,
            stored(path),
            aside,
            any(record.levelno == logging.WARNING for record in caplog.records),
        )


class TestDiscard:
    def test_an_exception_discards(self, face, ctx, path):
        """After an exception, file and memory are unchanged, and the exception propagates."""
        before = identity(path)

        def body(tx):
            tx["a"] = 0
            tx["new"] = 1
            del tx["b"]
            tx["jobs"].append("spoilt")
            raise LookupError("mine")

        with pytest.raises(LookupError, match="mine"):
            face.inside(ctx.transaction, body)

        assert (before, {"a": 100, "b": 0, "jobs": [1]}, set()) == (identity(path), dict(ctx), ctx.unsaved_keys())

    def test_the_lock_is_free_afterwards(self, face, ctx, path):
        """After a discarded transaction, others can go on, and so can this context."""
        with pytest.raises(ZeroDivisionError):
            face.inside(ctx.transaction, lambda tx: 1 / 0)
        numbers = [face.do(face.open(path, lock_timeout=10).incr, "n"), face.do(ctx.incr, "n")]

        assert [1, 2] == numbers

    def test_a_value_that_json_cannot_hold_discards(self, face, ctx, path):
        """A value that cannot be written is refused at the commit, and nothing of the transaction is written."""
        before = identity(path)

        def body(tx):
            tx["a"] = 0
            tx["bad"] = [{1}]

        with pytest.raises(UnserializableValueError) as caught:
            face.inside(ctx.transaction, body)

        assert (before, True, {"a": 100, "b": 0, "jobs": [1]}, set()) == (
            identity(path),
            '["bad"][0] is a set' in str(caught.value),
            dict(ctx),
            ctx.unsaved_keys(),
        )

    def test_the_lock_is_free_after_a_refused_commit(self, face, ctx, path):
        """After a refused commit, others can go on."""
        with pytest.raises(UnserializableValueError):
            face.inside(ctx.transaction, lambda tx: tx.update(bad=object()))

        assert 1 == face.do(face.open(path, lock_timeout=10).incr, "n")

    def test_a_key_that_is_not_a_str_is_refused_at_once(self, face, ctx, path):
        """A bad key is refused when it is set; the transaction goes on."""

        def body(tx):
            with pytest.raises(UnserializableValueError):
                tx[1] = 1
            tx["a"] = 1

        face.inside(ctx.transaction, body)

        assert {"a": 1, "b": 0, "jobs": [1]} == stored(path)


class TestNothingChanged:
    @pytest.mark.parametrize("body", [
        lambda tx: None,
        dict,
        lambda tx: tx.update(a=100, jobs=[1]),
        lambda tx: tx.update(a=tx.pop("a")) if False else tx.get("a"),
        lambda tx: (tx["jobs"].append(2), tx["jobs"].pop()),
    ], ids=["nothing", "reading", "the-same", "get", "there-and-back"])  # fmt: skip
    def test_it_writes_nothing(self, face, ctx, path, body):
        """A transaction without changes leaves the file untouched."""
        before = identity(path)
        face.inside(ctx.transaction, body)

        assert before == identity(path)

    def test_it_makes_no_file(self, face, path):
        """A transaction without changes does not create a file."""
        ctx = face.open(path)
        face.inside(ctx.transaction, dict)

        assert False is path.exists()

    def test_true_in_place_of_one_is_a_change(self, face, ctx, path):
        """True, 1 and 1.0 are three values in transactions, too."""
        face.inside(ctx.transaction, lambda tx: tx.update(b=False))

        assert "False" == repr(stored(path)["b"])

    def test_a_key_that_a_transaction_only_asked_for_is_left_as_it_is(self, tmp_path):
        """Asking whether a key exists changes nothing, and writes nothing."""
        path = tmp_path / "state.json"
        path.write_text('{"a": [1]}', encoding="utf-8")
        ctx = SyncPersistentContext.create(path)
        with ctx.transaction() as tx:
            known = "a" in tx, "b" in tx
            shown = repr(tx)

        assert ((True, False), '{"a": [1]}') == (known, path.read_text(encoding="utf-8"))
        assert ("open" in shown, "over" in repr(tx), "1 key in" in repr(ctx)) == (True, True, True)


class TestUnsavedChanges:
    def test_a_touched_key_is_taken_along(self, face, ctx, path):
        """The body sees an unsaved change, which is committed with its own."""
        ctx.set("a", 50)

        def body(tx):
            tx["a"] -= 10

        face.inside(ctx.transaction, body)

        assert ({"a": 40, "b": 0, "jobs": [1]}, 40, set()) == (stored(path), ctx["a"], ctx.unsaved_keys())

    @pytest.mark.parametrize("look", [
        lambda tx: tx["a"],
        lambda tx: tx.get("a"),
        lambda tx: tx.pop("a"),
        lambda tx: tx.setdefault("a", 1),
        lambda tx: dict(tx.items())["a"],
        lambda tx: dict(tx)["a"],
    ], ids=["subscript", "get", "pop", "setdefault", "items", "dict"])  # fmt: skip
    def test_every_way_of_reading_a_key_sees_it(self, face, ctx, look):
        """However the body reads a key, it sees the unsaved change."""
        ctx.set("a", 50)

        assert 50 == face.inside(ctx.transaction, look)

    @pytest.mark.parametrize("look", [
        dict,
        lambda tx: {key: tx[key] for key in tx},
        lambda tx: {key: tx[key] for key in reversed(tx)},
        lambda tx: dict(zip(tx.keys(), tx.values(), strict=True)),
        lambda tx: 100 not in tx.values() and dict(tx),
        lambda tx: {} if len(tx) != 2 else dict(tx.items()),
    ], ids=["dict", "iter", "reversed", "views", "in values", "len"])  # fmt: skip
    def test_an_unsaved_deletion_is_seen_by_all_that_iterates(self, face, ctx, path, look):
        """The key is left out, and its deletion is committed; other unsaved changes are only if they are read."""
        del ctx["a"]

        assert {"b": 0, "jobs": [1]} == face.inside(ctx.transaction, look)
        assert {"b": 0, "jobs": [1]} == stored(path)

    def test_iterating_over_keys_takes_nothing_else_along(self, face, ctx, path):
        """An unsaved value stays unsaved until its key is read."""
        ctx.set("b", 1)

        assert (["a", "b", "jobs"], 3) == face.inside(ctx.transaction, lambda tx: ([*tx], len(tx)))
        assert ({"b"}, 0) == (ctx.unsaved_keys(), stored(path)["b"])

    def test_a_change_in_place_is_taken_along(self, face, ctx, path):
        """An unsaved change in place is seen inside."""
        ctx["jobs"].append(2)
        face.inside(ctx.transaction, lambda tx: tx["jobs"].append(3))

        assert ([1, 2, 3], [1, 2, 3], set()) == (stored(path)["jobs"], ctx["jobs"], ctx.unsaved_keys())

    def test_a_deletion_is_taken_along(self, face, ctx, path):
        """A key whose deletion is unsaved is absent inside."""
        del ctx["b"]

        def body(tx):
            present = "b" in tx
            tx["b"] = 7
            return present

        assert (False, 7) == (face.inside(ctx.transaction, body), stored(path)["b"])

    def test_a_new_key_is_taken_along(self, face, ctx, path):
        """An unsaved new key is present inside."""
        ctx.set("new", 1)

        def body(tx):
            tx["new"] += 1

        face.inside(ctx.transaction, body)

        assert (2, set()) == (stored(path)["new"], ctx.unsaved_keys())

    def test_others_stay_unsaved(self, face, ctx, path):
        """Unsaved changes of keys that the body did not touch are neither written nor lost."""
        ctx.set("a", 50)
        ctx["jobs"].append(2)
        ctx.set("new", 1)

        def body(tx):
            tx["b"] = 1

        face.inside(ctx.transaction, body)

        assert (
            {"a": 100, "b": 1, "jobs": [1]},
            {"a", "jobs", "new"},
            {"a": 50, "b": 1, "jobs": [1, 2], "new": 1},
        ) == (stored(path), ctx.unsaved_keys(), dict(ctx))

    def test_those_are_saved_by_the_next_save(self, face, ctx, path):
        """Changes that stayed unsaved are saved later, and undo nothing of the transaction."""
        ctx.set("a", 50)

        def body(tx):
            tx["b"] = 1

        face.inside(ctx.transaction, body)
        face.do(ctx.save)

        assert {"a": 50, "b": 1, "jobs": [1]} == stored(path)

    def test_a_discard_leaves_them_unsaved(self, face, ctx, path):
        """A change that a discarded transaction has included is still unsaved."""
        ctx.set("a", 50)
        ctx["jobs"].append(2)

        def body(tx):
            tx["a"] -= 10
            tx["jobs"].append("spoilt")
            raise LookupError

        with pytest.raises(LookupError):
            face.inside(ctx.transaction, body)

        assert ({"a": 100, "b": 0, "jobs": [1]}, 50, [1, 2], {"a", "jobs"}) == (
            stored(path),
            ctx["a"],
            ctx["jobs"],
            ctx.unsaved_keys(),
        )

    def test_a_bad_value_in_an_untouched_key_does_no_harm(self, face, ctx, path):
        """Only the values to be written must be valid."""
        ctx.set("bad", object())

        def body(tx):
            tx["b"] = 1

        face.inside(ctx.transaction, body)

        assert (1, {"bad"}) == (stored(path)["b"], ctx.unsaved_keys())

    def test_a_set_inside_the_body_but_on_the_context_stays_unsaved(self, face, ctx, path):
        """Changing the context while a transaction is open changes only memory."""

        def body(tx):
            tx["b"] = 1
            with pytest.warns(UnsavedInTransactionWarning):
                ctx.set("a", 5)

        face.inside(ctx.transaction, body)

        assert (100, 5, {"a"}) == (stored(path)["a"], ctx["a"], ctx.unsaved_keys())


class TestMapping:
    def test_it_is_a_mutable_mapping(self, face, ctx):
        """A transaction is accepted wherever a MutableMapping is."""

        assert True is face.inside(ctx.transaction, lambda tx: isinstance(tx, MutableMapping))

    def test_reading(self, face, ctx):
        """All ways of reading a dict work."""

        def body(tx):
            return (
                list(tx), list(tx.keys()), list(tx.values()), list(tx.items()), len(tx), "a" in tx, "z" in tx, 1 in tx,
                tx.get("z"), tx.get("z", 3), dict(tx),
            )  # fmt: skip

        plain = {"a": 100, "b": 0, "jobs": [1]}

        assert body(plain) == face.inside(ctx.transaction, body)

    def test_writing(self, face, ctx, path):
        """All ways of writing a dict work."""

        def body(tx):
            results = [tx.pop("b"), tx.pop("z", 4), tx.setdefault("a", 5), tx.setdefault("c", 6)]
            tx.update({"d": 7}, e=8)
            del tx["d"]
            tx["f"] = 9
            return results

        plain = {"a": 100, "b": 0, "jobs": [1]}

        assert (body(plain), plain, list(plain)) == (
            face.inside(ctx.transaction, body),
            stored(path),
            list(stored(path)),
        )

    def test_absent_keys(self, face, ctx):
        """Absent keys raise KeyError."""

        def body(tx):
            with pytest.raises(KeyError):
                tx["z"]
            with pytest.raises(KeyError):
                del tx["z"]
            with pytest.raises(KeyError):
                tx.pop("z")
            return True

        assert True is face.inside(ctx.transaction, body)

    def test_clear(self, face, ctx, path):
        """clear() empties the file."""
        face.inside(ctx.transaction, lambda tx: tx.clear())

        assert (b"{}\n", {}) == (path.read_bytes(), dict(ctx))

    def test_keys_that_were_deleted_and_set_again_come_last(self, face, ctx, path):
        """In the file, they are in the order in which they were set again."""

        def body(tx):
            del tx["a"], tx["jobs"]
            tx["jobs"] = [2]
            tx["a"] = 1

        face.inside(ctx.transaction, body)

        assert ["b", "jobs", "a"] == list(stored(path))

    def test_a_value_read_twice_is_one_object(self, face, ctx):
        """A value read twice is the same live object."""

        assert True is face.inside(ctx.transaction, lambda tx: tx["jobs"] is tx["jobs"])


class TestTheEnd:
    @pytest.mark.parametrize("use", [
        lambda tx: tx["a"],
        lambda tx: tx.get("a"),
        lambda tx: tx.update(a=1),
        lambda tx: tx.pop("a"),
        lambda tx: tx.__delitem__("a"),
        lambda tx: "a" in tx,
        list,
        len,
    ], ids=["read", "get", "write", "pop", "delete", "in", "iterate", "len"])  # fmt: skip
    @pytest.mark.parametrize("how", ["committed", "discarded"])
    def test_a_finished_transaction_cannot_be_used(self, face, ctx, use, how):
        """A transaction cannot be used after its block, and the error says so."""
        kept = []

        def body(tx):
            kept.append(tx)
            tx["b"] = 1
            if how == "discarded":
                raise LookupError

        try:
            face.inside(ctx.transaction, body)
        except LookupError:
            pass
        with pytest.raises(ContextUsageError):
            use(kept[0])

        assert (1 if how == "committed" else 0) == ctx["b"]

    def test_a_value_kept_from_it_does_not_reach_the_file(self, face, ctx, path):
        """Changing a value of the transaction after its end is at most an unsaved change."""
        jobs = face.inside(ctx.transaction, lambda tx: tx.setdefault("list", []))
        jobs.append("late")
        face.do(ctx.incr, "n")

        assert [] == stored(path)["list"]


class TestTimeout:
    def test_it_names_the_holder(self, face, ctx, path, hold_transaction):
        """The timeout error names the holder of the lock: pid, host, since when, and for what."""
        with hold_transaction(path) as held:
            with pytest.raises(LockTimeoutError) as caught:
                face.inside(ctx.transaction, dict, timeout=0.05)
        holder = caught.value.holder

        assert (held.pid, socket.gethostname(), True, True, True) == (
            holder.pid,
            holder.host,
            isinstance(holder, Holder),
            isinstance(holder.since, int | float),
            isinstance(holder.purpose, str) and holder.purpose != "",
        )

    def test_it_carries_its_data(self, face, ctx, path, hold_transaction):
        """The error has the path and the timeout, and is a TimeoutError."""
        with hold_transaction(path) as held:
            with pytest.raises(LockTimeoutError) as caught:
                face.inside(ctx.transaction, dict, timeout=0.05)
        error = caught.value

        assert (str(path), True, True, True, True) == (
            str(error.filepath),
            isinstance(error, TimeoutError),
            isinstance(error.waited, int | float) and error.waited >= 0,
            "state.json" in str(error),
            str(held.pid) in str(error),
        )

    def test_a_plain_foreign_lock(self, face, ctx, path, hold):
        """The wait for a program that leaves no stamp also times out, without naming a holder."""
        with hold(path), pytest.raises(LockTimeoutError) as caught:
            face.inside(ctx.transaction, dict, timeout=0)

        assert caught.value.holder is None or caught.value.holder.pid is None

    def test_the_contexts_lock_timeout_is_the_default(self, face, ctx, path, hold):
        """A transaction without a timeout of its own waits as long as the context's lock_timeout."""
        impatient = face.open(path, lock_timeout=0)
        with hold(path), pytest.raises(LockTimeoutError):
            face.inside(impatient.transaction, dict)

    def test_after_a_timeout_the_context_works(self, face, ctx, path, hold):
        """A wait that timed out leaves nothing behind."""
        with hold(path), pytest.raises(LockTimeoutError):
            face.inside(ctx.transaction, dict, timeout=0.05)
        face.inside(ctx.transaction, lambda tx: tx.update(a=1))

        assert 1 == face.do(face.open(path, lock_timeout=10).incr, "n")
