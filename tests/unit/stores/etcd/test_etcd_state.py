"""What is in a namespace: order, what other programs leave there, and namespaces within each other."""

from __future__ import annotations

import subprocess

import pytest

import etcd
from persistent_context import CorruptFileError, LockLostError, SyncPersistentContext
from persistent_context._stores.etcd.client import delete, end_of, get, put
from persistent_context._stores.factory import locate


def stored(client, names):
    """Return all keys below a namespace, and their values."""
    start = names.namespace + b"/"
    return {item.key[len(start) :]: item.value for item in client.read(get(start, end_of(start))).found[0].items}


class TestWhatIsStored:
    def test_each_key_is_a_key_of_etcd(self, url, client, names):
        """Each top-level key is one key of etcd with its JSON text; besides it there is just the marker."""
        ctx = SyncPersistentContext(url)
        ctx.update({"a": {"b": [1, "ü"]}, "b/c ü": None})
        ctx.save()
        found = stored(client, names)

        assert {b"k/a", "k/b/c ü".encode(), b"m"} == found.keys()
        assert ('{"b": [1, "ü"]}'.encode(), b"null") == (found[b"k/a"], found["k/b/c ü".encode()])

    def test_etcdctl_shows_it(self, url, names):
        """Other programs read a value as it is."""
        SyncPersistentContext(url).add("greeting", "hello")
        key = names.value("greeting").decode()
        command = ["etcdctl", "--endpoints", etcd.member().endpoint, "get", "--print-value-only", key]
        done = subprocess.run(
            command, env={"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin"}, capture_output=True, check=True
        )

        assert b'"hello"\n' == done.stdout

    def test_nothing_is_left_of_a_key_that_was_moved_and_deleted(self, url, client, names):
        """A key that has a number leaves nothing behind."""
        ctx = SyncPersistentContext(url)
        ctx.update({"b": 1, "a": 2})
        ctx.save()
        numbered = stored(client, names)
        for key in "ab":
            ctx.delete(key)

        assert ({b"o/a", b"o/b"}, {b"m"}) == (numbered.keys() & {b"o/a", b"o/b"}, stored(client, names).keys())


class TestOrder:
    def test_keys_that_were_set_together_keep_their_order(self, url):
        """New keys of one commit come in the order in which they were set, for every process."""
        ctx = SyncPersistentContext(url)
        ctx.add("first", 0)
        ctx.update({"z": 1, "a": 2, "m": 3})
        ctx.save()
        ctx.add("b", 4)

        assert ["first", "z", "a", "m", "b"] == list(
            SyncPersistentContext.create(url.replace("127.0.0.1", "localhost"))
        )

    def test_a_key_that_was_deleted_by_another_program_comes_last_when_it_returns(self, url, client, names):
        """A number that is older than its key does not count."""
        ctx = SyncPersistentContext(url)
        ctx.update({"z": 1, "a": 2})
        ctx.save()
        client.transact([delete(names.value("z"))])
        ctx.add("b", 3)
        ctx.add("z", 4)

        assert (
            ["a", "b", "z"]
            == list(SyncPersistentContext.create(url.replace("127.0.0.1", "localhost")))
            == _after_loading(ctx)
        )


def _after_loading(ctx):
    ctx.load()
    return list(ctx)


class TestOtherPrograms:
    def test_what_they_set_and_delete_is_read(self, url, client, names):
        """Keys that were set or deleted with etcdctl are taken over, in any layout of their JSON."""
        ctx = SyncPersistentContext(url)
        ctx.update({"stays": 1, "goes": 2})
        ctx.save()
        client.transact([put(names.value("new"), b' {"a" :\n [1, 2] }\n'), delete(names.value("goes"))])
        ctx.refresh()

        assert {"stays": 1, "new": {"a": [1, 2]}} == ctx.get_all_data()
        assert 3 == ctx.mutate("new", lambda new: len(new["a"]) + 1)

    @pytest.mark.parametrize("value", [b"", b"nonsense", b"1,2", b'1,"":2', b"1}", b'"\xff"', b"[" * 600 + b"]" * 600])
    def test_what_is_not_json_is_an_error_that_names_the_key(self, url, client, names, value):
        """An invalid value is refused by every call that reads it; the error says what to do."""
        ctx = SyncPersistentContext(url)
        ctx.add("n", 1)
        client.transact([put(names.value("x"), value)])
        for call in (ctx.load, ctx.refresh, lambda: ctx.transaction().__enter__()):
            with pytest.raises(CorruptFileError, match="does not have a JSON value.*correct or delete") as caught:
                call()
            assert names.value("x").decode() in str(caught.value)
        client.transact([delete(names.value("x"))])

        assert 2 == ctx.incr("n")

    @pytest.mark.parametrize("number", [1, 200])
    def test_a_transaction_that_they_disturb_says_so(self, url, client, names, number):
        """If they have changed its keys, a transaction writes nothing, and does not blame a stop of its process."""
        ctx = SyncPersistentContext(url)
        tx = ctx.transaction()
        tx.__enter__().update({str(key): 0 for key in range(number)})
        client.transact([put(names.value("0"), b"1")])
        with pytest.raises(LockLostError, match=": a program that does not use this library .*; nothing was written"):
            tx.__exit__(None, None, None)

        assert {"0": 1} == SyncPersistentContext.create(url).get_all_data()

    @pytest.mark.parametrize("name", ["k", "o"])
    def test_a_name_that_is_not_utf_8_is_an_error(self, url, client, names, name):
        """A key whose name is no text is named in the error."""
        client.transact([put(names.namespace + f"/{name}/".encode() + b"\xff", b"1")])
        with pytest.raises(CorruptFileError, match=r"\\\\xff.*not valid UTF-8"):
            SyncPersistentContext.create(url)

    @pytest.mark.parametrize("value", [b"", b"{}", b"1", b"[" * 100_000])
    def test_a_marker_of_another_program_is_an_error(self, url, client, names, value):
        """A marker that this library did not write is not overwritten."""
        client.transact([put(names.marker, value)])
        with pytest.raises(CorruptFileError, match="is not a marker of this library"):
            SyncPersistentContext(url).incr("n")

    def test_numbers_of_another_program_are_no_harm(self, url, client, names):
        """A key's number that is no number is as if it were not there; one without a key has no effect."""
        ctx = SyncPersistentContext(url)
        for key in "ba":
            ctx.add(key, 1)
        client.transact([put(names.order("b"), b"x"), put(names.order("none"), b"1")])
        ctx.load()

        assert ["b", "a"] == list(SyncPersistentContext.create(url))
        assert {"a", "b"} == set(ctx)


class TestSameness:
    def test_it_is_that_of_the_content(self, store, url):
        """States that were read separately are the same if nothing was changed, and differ otherwise."""
        space, ctx, seen = store._namespace, SyncPersistentContext(url), []
        for change in (lambda: None, lambda: ctx.add("a", 1), lambda: ctx.incr("a"), lambda: ctx.delete("a")):
            change()
            seen.append([space.read()])
            space.forget()
            seen[-1].append(space.read())

        assert [True] * 4 == [one.is_same_as(other) for one, other in seen]
        assert [False] * 3 == [seen[n][0].is_same_as(seen[n + 1][0]) for n in range(3)]


class TestNamespaces:
    def test_within_each_other_they_are_apart(self, url):
        """Neither a namespace nor one within it sees what the other one holds."""
        urls = [url, f"{url}/node", f"{url}/l1/x", f"{url}x"]
        for number, one in enumerate(urls):
            SyncPersistentContext(one).add("n", number)

        assert [{"n": number} for number in range(4)] == [
            SyncPersistentContext.create(one).get_all_data() for one in urls
        ]

    def test_different_urls_of_one_state_share_a_queue(self, url):
        """The user in a URL, and how it is written, make no difference to where the state is."""
        host, _, namespace = url.removeprefix("etcd://").partition("/")

        assert locate(url) == locate(f"etcd://ann:secret@{host.upper()}//{namespace}/")
