"""Commits: one request if nothing disturbs them; what was sent without an answer is settled, never sent twice."""

from __future__ import annotations

import asyncio
import threading

import pytest

import etcd
from etcdproxy import DROP, HOLD, LOSE, PASS, is_commit, keys_put
from persistent_context import (
    ConflictError,
    OutcomeUnknownError,
    PersistentContext,
    StoreLimitError,
    StoreUnavailableError,
    SyncPersistentContext,
)
from persistent_context._stores.etcd import commit as _commit
from persistent_context._stores.etcd import session as _session
from persistent_context._stores.etcd.client import delete


def once(action, wanted=is_commit):
    """Return a decision about the first request that is wanted; all others are passed on."""
    left = [action]

    def decide(path, body):
        return left.pop() if left and wanted(body) else PASS

    return decide


class TestUndisturbed:
    def test_one_call_is_one_request(self, proxy, proxied):
        """A call on a known state makes a single request, and so does one that changes nothing."""
        ctx = SyncPersistentContext(proxied)
        ctx.incr("n")
        proxy.seen.clear()
        ctx.incr("n")
        after_change = list(proxy.seen)
        ctx.add("n", 0)

        assert ["/v3/kv/txn"] == after_change
        assert ["/v3/kv/txn"] * 2 == proxy.seen

    def test_a_change_by_another_process_is_seen(self, proxied, url):
        """A call on a state that is no longer the latest one is carried out on the latest one."""
        mine, theirs = SyncPersistentContext(proxied), SyncPersistentContext(url)
        for ctx in (mine, theirs, theirs, mine, theirs):
            ctx.incr("n")

        assert 6 == mine.incr("n")
        assert 2 == mine.statistics().retries

    def test_a_call_that_changes_nothing_looks_at_the_latest_state(self, proxied, url):
        """Its result is that of the latest state."""
        mine, theirs = SyncPersistentContext(proxied), SyncPersistentContext(url)
        mine.add("key", "mine")
        theirs.delete("key")

        assert mine.add("key", "mine again")

    def test_a_call_that_fails_looks_at_the_latest_state(self, proxied, url):
        """A call that fails on a state that is no longer the latest one is carried out on the latest one."""
        mine, theirs = SyncPersistentContext(proxied), SyncPersistentContext(url)
        mine.add("key", "a word")
        theirs.compare_and_set("key", "a word", 1)

        assert 2 == mine.incr("key")

    def test_a_key_that_a_program_sets_with_etcdctl_is_not_overwritten_unseen(self, proxied, client, names):
        """The changed keys are compared, too: not all programs know the marker."""
        ctx = SyncPersistentContext(proxied)
        ctx.incr("n")
        client.transact([_commit.put(names.value("n"), b" 41 ")])

        assert 42 == ctx.incr("n")

    @pytest.mark.parametrize("keys", [1, 60, 200])
    def test_nor_after_commits_of_other_keys(self, url, client, names, keys):
        """What this process has committed meanwhile hides such a change neither from reads nor from commits."""
        ctx = SyncPersistentContext.create(url)
        ctx.update({"a": 1} | {f"k{number}": 0 for number in range(keys)})
        ctx.save()
        reading = SyncPersistentContext.create(url)
        client.transact([_commit.put(names.value("a"), b"2")])
        ctx.incr("other")
        reading.refresh()
        writing = SyncPersistentContext.create(url, on_conflict="raise")
        client.transact([_commit.put(names.value("a"), b"3")])
        ctx.incr("other")
        writing.update({key: value + 10 for key, value in writing.items() if key != "other"})
        with pytest.raises(ConflictError) as caught:
            writing.save()

        assert (2, {"a"}) == (reading["a"], set(caught.value.keys))

    def test_the_order_stays_whatever_is_known_already(self, url, proxied):
        """A key that another process changes where it is stays there, though this one has just put it there."""
        mine, other = SyncPersistentContext.create(url), SyncPersistentContext(proxied)
        mine.update({"z": 1, "y": 1})
        mine.save()
        mine.incr("x")
        other.incr("z")
        mine.load()
        other.load()

        assert ["z", "y", "x"] == list(mine) == list(other)

    def test_many_keys_are_committed_at_once(self, url):
        """A commit may have more keys than a list of operations, in their order, and is compared as a whole."""
        ctx, other = SyncPersistentContext(url), SyncPersistentContext(url)
        wanted = {str(n): n for n in range(1000, 0, -1)}
        ctx.update(wanted)
        ctx.save()
        other.load()

        assert list(wanted.items()) == list(other.get_all_data().items())


class TestWithoutAnAnswer:
    @pytest.mark.parametrize("transaction", [False, True])
    @pytest.mark.parametrize("action", [LOSE, DROP])
    def test_a_change_is_made_once(self, proxy, proxied, url, action, transaction):
        """Whether the request was carried out or not, the call succeeds, and its change is made exactly once."""
        ctx = SyncPersistentContext(proxied)
        ctx.incr("n")
        proxy.decide = once(action)
        if transaction:
            with ctx.transaction() as tx:
                tx["n"] = tx["n"] + 1
        else:
            ctx.incr("n")

        assert 2 == SyncPersistentContext.create(url)["n"]

    def test_the_first_change_of_all_is_made_once(self, proxy, proxied, url):
        """The same where nothing was stored before."""
        proxy.decide = once(LOSE)

        assert 1 == SyncPersistentContext(proxied).incr("n")
        assert {"n": 1} == SyncPersistentContext.create(url).get_all_data()

    @pytest.mark.parametrize("transaction", [False, True])
    @pytest.mark.parametrize("attempt", [2, 3])
    def test_one_that_arrives_late_has_no_effect(self, proxy, proxied, url, attempt, transaction):
        """A request that arrives after it was settled, before the next attempt or after it, is not carried out."""
        ctx, other, commits = SyncPersistentContext(proxied), SyncPersistentContext(url), []
        ctx.incr("n")

        def decide(path, body):
            if is_commit(body):
                commits.append(path)
                if len(commits) == attempt:
                    proxy.release()
                return HOLD if len(commits) == 1 else PASS
            return PASS

        proxy.decide = decide
        if transaction:
            with ctx.transaction() as tx:
                tx["n"] = tx["n"] + 1
        else:
            ctx.incr("n")
        proxy.release()

        assert 3 == other.incr("n")

    def test_it_is_not_sent_again(self, proxy, proxied, url):
        """What others have changed after a commit without an answer is not overwritten by sending it again."""
        ctx, other, requests = SyncPersistentContext(proxied), SyncPersistentContext(url), []
        ctx.incr("n")

        def decide(path, body):
            requests.append(path)
            if len(requests) == 2:
                other.incr("n")
            return LOSE if len(requests) == 1 else PASS

        proxy.decide = decide
        ctx.incr("n")

        assert 3 == SyncPersistentContext.create(url.replace("127.0.0.1", "localhost"))["n"]

    def test_it_is_found_among_later_commits(self, proxy, proxied, url):
        """A commit that was carried out is recognized among later ones of others, and these are not overwritten."""
        ctx, other = SyncPersistentContext(proxied), SyncPersistentContext(url)
        ctx.incr("n")
        seen = []

        def decide(path, body):
            if is_commit(body):
                seen.append("commit")
                return LOSE if len(seen) == 1 else PASS
            if seen == ["commit"] and keys_put(body):  # the fence
                seen.append("fence")
                for _ in range(3):
                    other.incr("n")
            return PASS

        proxy.decide = decide
        ctx.incr("n")

        assert (["commit", "fence"], 5) == (seen, SyncPersistentContext.create(url)["n"])
        assert 6 == ctx.incr("n")  # the later commits are not taken for known

    def test_it_is_found_not_to_be_among_later_commits(self, proxy, proxied, url):
        """A commit that was not carried out is made again although others have committed since."""
        ctx, other = SyncPersistentContext(proxied), SyncPersistentContext(url)
        ctx.incr("n")
        seen = []

        def decide(path, body):
            if is_commit(body) and not seen:
                seen.append("commit")
                for _ in range(3):
                    other.incr("n")
                return DROP
            return PASS

        proxy.decide = decide

        assert 5 == ctx.incr("n")

    def test_it_is_settled_although_the_answer_to_that_is_lost_too(self, proxy, proxied, url, client):
        """What has been sent to settle a commit is recognized when it is sent again; no history is needed for that."""
        ctx, sent = SyncPersistentContext(proxied), []
        ctx.incr("n")

        def decide(path, body):
            sent.append(path)
            if len(sent) == 3:
                revision = client.transact([_commit.put(b"another", b"")]).revision
                client.gateway.call("/v3/kv/compaction", {"revision": str(revision)}, repeatable=True)
            return {1: DROP, 2: LOSE}.get(len(sent), PASS)

        proxy.decide = decide

        assert 2 == ctx.incr("n")

    def test_and_among_later_commits(self, proxy, proxied, url, client):
        """The same if others have committed since: the commit was not carried out before, and cannot be after it."""
        ctx, other, sent = SyncPersistentContext(proxied), SyncPersistentContext(url), []
        ctx.incr("n")

        def decide(path, body):
            sent.append(path)
            if len(sent) == 3:
                other.incr("n")
                other.incr("n")
            return {1: DROP, 2: LOSE}.get(len(sent), PASS)

        proxy.decide = decide

        assert 4 == ctx.incr("n")

    def test_what_cannot_be_settled_is_unknown(self, proxy, proxied, monkeypatch):
        """If no answer comes for long, the call says that its outcome is unknown, and is not made again."""
        monkeypatch.setattr(_commit, "SETTLE_SECONDS", 0.5)
        ctx, commits = SyncPersistentContext(proxied), []
        ctx.incr("n")
        is_down = threading.Event()

        def decide(path, body):
            if is_commit(body):
                commits.append(body)
                is_down.set()
            return DROP if is_down.is_set() else PASS

        proxy.decide = decide
        with pytest.raises(OutcomeUnknownError, match="no endpoint could tell within 0.5 s whether it was made"):
            ctx.incr("n")
        proxy.decide = lambda path, body: PASS

        assert (1, 2) == (len(commits), ctx.incr("n"))

    @pytest.mark.parametrize("is_set_again", [False, True])
    def test_what_was_deleted_meanwhile_is_unknown(self, proxy, proxied, url, client, names, is_set_again):
        """If another program has deleted the marker, nothing tells whether the commit was made."""
        ctx = SyncPersistentContext(proxied)
        ctx.incr("n")

        def decide(path, body):
            if is_commit(body):
                proxy.decide = lambda path, body: PASS
                client.transact([delete(names.marker)])
                if is_set_again:
                    SyncPersistentContext(url).incr("n")
                return DROP
            return PASS

        proxy.decide = decide
        with pytest.raises(OutcomeUnknownError, match="marker"):
            ctx.incr("n")

    def test_what_cannot_be_made_says_why(self, proxy, proxied, monkeypatch):
        """A call whose commits are never answered ends with the reason, as nobody else is to blame."""
        monkeypatch.setattr(_session, "_PATIENCE_SECONDS", 0.1)
        ctx = SyncPersistentContext(proxied, lock_timeout=0.5)
        ctx.incr("n")
        proxy.decide = lambda path, body: DROP if is_commit(body) else PASS
        with pytest.raises(StoreUnavailableError, match="etcd") as caught:
            ctx.incr("n")
        proxy.decide = lambda path, body: PASS

        assert [proxy.endpoint] == list(caught.value.endpoints)
        assert (2, None) == (ctx.incr("n"), ctx._link.find().store.holder(probe=False))

    @pytest.mark.parametrize("exists", [True, False])
    @pytest.mark.parametrize(("action", "at_commit"), [(LOSE, False), (LOSE, True), (DROP, False)])
    def test_what_is_left_of_the_history_is_enough(self, proxy, proxied, url, client, action, at_commit, exists):
        """A commit is settled although the known marker, or even the commit itself, is older than the history."""
        ctx, other, steps = SyncPersistentContext(proxied), SyncPersistentContext(url), []
        if exists:
            ctx.incr("n")

        def compact():
            revision = client.read(_commit.get(b"none")).revision
            client.gateway.call("/v3/kv/compaction", {"revision": str(revision)}, repeatable=True)

        def decide(path, body):
            if is_commit(body) and not steps:
                for _ in range(2):
                    client.transact([_commit.put(b"another", b"")])
                steps.append(compact() if not at_commit else None)
                return action
            if len(steps) == 1:  # before it is settled
                steps.append(compact() if at_commit else None)
                other.incr("n", 10)
            return PASS

        proxy.decide = decide

        assert (exists + 1 if action == LOSE else exists + 11) == ctx.incr("n")
        assert exists + 11 == SyncPersistentContext.create(url)["n"]

    def test_what_was_compacted_is_unknown(self, proxy, proxied, url, client):
        """If the history that would tell was removed, the outcome is unknown."""
        ctx, other = SyncPersistentContext(proxied), SyncPersistentContext(url)
        ctx.incr("n")

        def decide(path, body):
            if is_commit(body):
                proxy.decide = lambda path, body: PASS
                for _ in range(3):
                    other.incr("n")
                revision = client.read(_commit.get(b"none")).revision
                client.gateway.call("/v3/kv/compaction", {"revision": str(revision)}, repeatable=True)
                return DROP
            return PASS

        proxy.decide = decide
        with pytest.raises(OutcomeUnknownError, match="compacted"):
            ctx.incr("n")

        assert 5 == ctx.incr("n")


class TestTooMuch:
    def test_one_call_is_refused(self, url):
        """A call that changes more than etcd accepts at once changes nothing, and says which value is large."""
        ctx = SyncPersistentContext(url)
        ctx["small"], ctx["large"] = 1, "x" * 1_600_000
        with pytest.raises(StoreLimitError, match="the largest value is that of 'large'") as caught:
            ctx.save()

        assert (ctx.place, "large") == (caught.value.filepath, caught.value.key)
        assert {} == SyncPersistentContext.create(url).get_all_data()

    def test_calls_that_share_a_cycle_go_alone(self, url):
        """Calls of which each is small enough are all carried out, however large they are together."""
        contexts = [SyncPersistentContext(url) for _ in range(4)]
        together = threading.Barrier(4)
        errors = []

        def add(number):
            together.wait()
            try:
                contexts[number].add(str(number), "x" * 900_000)
            except Exception as error:
                errors.append(error)

        threads = [threading.Thread(target=add, args=[number]) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert ([], set("0123")) == (errors, set(SyncPersistentContext.create(url)))

    async def test_keys_count_as_often_as_they_are_sent(self, url):
        """A changed key is also compared: calls with long keys are separated as well, and a single one is refused."""
        ctx = await PersistentContext.create(url)
        keys = [f"{number:02}{'k' * 1_500}" for number in range(90)]
        added = await asyncio.gather(*(ctx.add(key, "x" * 14_900) for key in keys))
        with pytest.raises(StoreLimitError):
            await ctx.add("k" * 100_000, "x" * 1_380_000)

        assert ({True}, set(keys)) == (set(added), set(SyncPersistentContext.create(url)))

    @pytest.mark.parametrize("keys", [range(13_000, 0, -1), range(13_000)])
    def test_many_small_keys_are_refused_too(self, url, keys):
        """What counts is all that has to be sent, including the order of the keys."""
        ctx = SyncPersistentContext(url)
        ctx.update({"n" * 80 + f"{n:06d}": n for n in keys})
        with pytest.raises(StoreLimitError):
            ctx.save()

        assert {} == SyncPersistentContext.create(url.replace("127.0.0.1", "localhost")).get_all_data()

    def test_just_below_the_limit_it_is_accepted(self, url):
        """The limit leaves room for what a transaction needs besides its values."""
        ctx = SyncPersistentContext(url)
        ctx["large"] = "x" * 1_499_500
        ctx.update({f"key {n}": n for n in range(2)})
        ctx.save()

        assert 3 == len(SyncPersistentContext.create(url))


class TestAFullStore:
    """etcd carries out the transaction that crosses its quota, and refuses it all the same (mvcc: no space)."""

    @pytest.mark.parametrize("transaction", [False, True])
    @pytest.mark.parametrize("others", [0, 2])
    def test_what_was_carried_out_is_not_said_to_be_refused(self, url, fill, others, transaction):
        """A change that was refused, but is in the cluster, was made, whether others have committed since or not."""
        ctx, other, seen = SyncPersistentContext(url), SyncPersistentContext(url.replace("127.0.0.1", "localhost")), []
        ctx.incr("n")

        def crosses_the_quota(body):
            if seen or not is_commit(body):
                return False
            seen.append(body)
            for _ in range(others):
                calling = threading.Thread(target=other.incr, args=["n"])
                calling.start()
                calling.join()
            return True

        fill(crosses_the_quota)
        if transaction:
            with ctx.transaction() as tx:
                tx["n"] += 1
        else:
            ctx.incr("n")

        assert 3 + others == ctx.incr("n")

    def test_what_was_not_carried_out_is_refused(self, tmp_path):
        """A change that no longer fits is refused with etcd's message: it is not made, and reading goes on."""
        etcd.require_etcd()
        member = etcd.Member("full", etcd.free_ports(2), tmp_path, more=["--quota-backend-bytes", "300000"])
        url = f"etcd://{member.start().until_healthy().endpoint}/app"
        ctx, saved = SyncPersistentContext(url), []

        def fill():
            for number in range(100):
                ctx.update(n=number, large=str(number) * 20_000)
                ctx.save()
                saved.append(number)

        with pytest.raises(OSError, match="database space exceeded"):
            fill()

        assert saved[-1] == SyncPersistentContext.create(url)["n"]
        member.kill()
