"""Turns and leases: in order, fenced, and over when their process is dead, stopped for long, or evicted."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from etcdproxy import DROP, PASS, is_commit, keys_put
from persistent_context import (
    ContextUsageError,
    LockLostError,
    LockTimeoutError,
    StoreUnavailableError,
    SyncPersistentContext,
)
from persistent_context._stores.etcd import connections as _connections
from persistent_context._stores.etcd import lease as _lease
from persistent_context._stores.etcd import leases as _leases
from persistent_context._stores.etcd import session as _session
from persistent_context._stores.etcd import turns as _turns
from persistent_context._stores.etcd.client import Client, counted, delete, end_of, first_created, get, put, text
from persistent_context._stores.etcd.failures import UnreachableError
from persistent_context._stores.etcd.lease import KeptLease
from persistent_context._stores.etcd.line import Line
from persistent_context._stores.etcd.turns import Turns

HOLDER = """
import sys
from persistent_context import SyncPersistentContext
ctx = SyncPersistentContext(sys.argv[1])
with ctx.transaction() as tx:
    tx["n"] = 1
    print("inside", flush=True)
    sys.stdin.readline()
print("done", flush=True)
"""
LOSER = """
import sys
from persistent_context import LockLostError, SyncPersistentContext
ctx = SyncPersistentContext(sys.argv[1])
try:
    with ctx.transaction() as tx:
        tx["n"] = 1
        print("inside", flush=True)
        sys.stdin.readline()
except LockLostError as error:
    print("lost:", error, flush=True)
"""


@pytest.fixture
def short_lease(monkeypatch):
    """Leases that end after two seconds."""
    monkeypatch.setattr(_lease, "LIFETIME_SECONDS", 2)


class TestOrder:
    def test_the_first_to_come_is_the_first_to_go(self, url):
        """Transactions of several stores get their turns in the order in which they came."""
        contexts = [SyncPersistentContext(f"{url.replace('127.0.0.1', host)}") for host in ("127.0.0.1", "localhost")]
        order, threads = [], []

        def work(number):
            with contexts[number % 2].transaction() as tx:
                order.append(number)
                tx["n"] = number

        with contexts[0].transaction():
            client = contexts[1]._link.find().store._namespace.client
            prefix = contexts[1]._link.find().store._namespace.names.queue
            for number in range(1, 6, 2):
                threads.append(threading.Thread(target=work, args=[number]))
                threads[-1].start()
                while client.read(counted(prefix, end_of(prefix))).found[0].count < 2:
                    time.sleep(0.01)
        for thread in threads:
            thread.join()

        assert [1, 3, 5] == order

    def test_tokens_grow(self, client, names):
        """Every turn has a greater number than all before."""
        turns, tokens = Turns(client, names.queue), []
        for _ in range(3):
            turn = turns.take("test", wait=True)
            tokens.append(turn.token)
            turn.end()

        assert sorted(set(tokens)) == tokens

    def test_an_evicted_transaction_writes_nothing(self, url, client, names):
        """What is written in a turn compares its key: if that is gone, nothing is written."""
        ctx, other = SyncPersistentContext(url), SyncPersistentContext(url.replace("127.0.0.1", "localhost"))
        ctx.add("n", 0)

        def lose():
            with ctx.transaction() as tx:
                tx["n"] += 1
                found = client.read(first_created(names.queue)).found[0].items
                client.transact([{"request_delete_range": {"key": text(found[0].key)}}])
                other.mutate("n", lambda n: n + 10)

        with pytest.raises(LockLostError, match="nothing was written"):
            lose()

        assert 10 == other.mutate("n", lambda n: n)

    def test_even_if_nobody_else_has_written(self, url, client, names):
        """The same if the state has not changed since."""
        ctx = SyncPersistentContext(url)
        ctx.add("n", 0)

        def lose():
            with ctx.transaction() as tx:
                tx["n"] += 1
                found = client.read(first_created(names.queue)).found[0].items
                client.transact([{"request_delete_range": {"key": text(found[0].key)}}])

        with pytest.raises(LockLostError):
            lose()

        assert {"n": 0} == SyncPersistentContext.create(url).get_all_data()

    def test_calls_without_a_turn_do_not_disturb_a_transaction(self, url):
        """While a transaction is open in one process, calls of another one wait, and are carried out after it."""
        mine, theirs = SyncPersistentContext(url), SyncPersistentContext(url.replace("127.0.0.1", "localhost"))
        theirs.incr("n")
        with mine.transaction() as tx:
            calling = threading.Thread(target=theirs.incr, args=["n"])
            calling.start()
            time.sleep(0.3)
            tx["n"] = 10
        calling.join()

        assert 11 == SyncPersistentContext.create(url)["n"]


class TestDeadAndStoppedProcesses:
    def test_a_killed_process_of_this_machine_gives_way_at_once(self, url, spawn):
        """A process that was killed in a transaction is seen dead: nobody waits for its lease to end."""
        other = spawn(HOLDER, url)
        assert "inside" == other.hear()
        other.kill()
        ctx = SyncPersistentContext(url, lock_timeout=_lease.LIFETIME_SECONDS / 2)

        assert 1 == ctx.incr("n")

    def test_a_stopped_process_keeps_its_turn_for_a_while(self, url, spawn, monkeypatch):
        """A stopped process is shown as the holder, and calls wait for it, up to their timeout."""
        monkeypatch.setattr(_turns, "_LOOK_AGAIN_SECONDS", 0.1)  # while the call waits, it looks several times
        other = spawn(HOLDER, url)
        assert "inside" == other.hear()
        os.kill(other.pid, signal.SIGSTOP)
        try:
            with pytest.raises(LockTimeoutError, match=f"process {other.pid} .*stopped: resume it"):
                SyncPersistentContext(url, lock_timeout=1).incr("n")
        finally:
            os.kill(other.pid, signal.SIGCONT)
        other.say()

        assert ["done"] == other.finish()
        assert 1 == SyncPersistentContext.create(url)["n"]

    def test_one_that_was_stopped_for_too_long_writes_nothing(self, url, spawn):
        """When the lease of a stopped process has ended, others go on; when it is resumed, it is told."""
        program = "from persistent_context._stores.etcd import lease; lease.LIFETIME_SECONDS = 2\n" + LOSER
        other = spawn(program, url)
        assert "inside" == other.hear()
        os.kill(other.pid, signal.SIGSTOP)
        number = SyncPersistentContext(url).incr("n", 5)
        os.kill(other.pid, signal.SIGCONT)
        other.say()
        (said,) = other.finish()

        assert said.startswith("lost:")
        assert "nothing was written" in said
        assert (5, 5) == (number, SyncPersistentContext.create(url)["n"])

    def test_a_lease_is_kept_alive(self, url, short_lease):
        """A transaction may be open for longer than its lease lives, as long as its process runs."""
        ctx = SyncPersistentContext(url)
        with ctx.transaction() as tx:
            time.sleep(5)
            tx["n"] = 1

        assert {"n": 1} == SyncPersistentContext.create(url).get_all_data()

    def test_an_unused_lease_ends(self, url, short_lease):
        """Some time after the last turn, the thread that keeps the lease alive has ended, and the lease with it."""
        ctx = SyncPersistentContext(url)
        with ctx.transaction() as tx:
            tx["n"] = 1
        while any(thread.name == "etcd lease" for thread in threading.enumerate()):
            time.sleep(0.05)
        with ctx.transaction() as tx:
            tx["n"] += 1

        assert {"n": 2} == SyncPersistentContext.create(url).get_all_data()

    @pytest.mark.parametrize("name", ["etcd lease", "etcd queue"])
    def test_a_thread_that_cannot_be_started_is_started_the_next_time(self, client, names, monkeypatch, name):
        """If the system has no thread left, the call fails and leaves the line; later ones are not affected."""
        turns, start = Turns(client, names.queue), threading.Thread.start

        def refuse(self):
            if self.name == name:
                raise RuntimeError("can't start new thread")
            start(self)

        holder = Turns(client, names.queue).take("test", wait=True)
        with monkeypatch.context() as context, pytest.raises(RuntimeError, match="can't start new thread"):
            context.setattr(threading.Thread, "start", refuse)
            turns.take("test", wait=True)

        assert turns._line.is_first(holder._place, seconds=10)
        holder.end()
        turns.take("test", wait=True).end()
        assert 0 == client.read(counted(names.queue, end_of(names.queue))).found[0].count
        assert (0, True) == (turns._lease._users, turns._lease._thread.is_alive())

    def test_a_renewal_that_fails_is_made_again(self, client, names, short_lease, monkeypatch):
        """Whatever goes wrong with one renewal, the lease is kept alive by the next one."""
        turns, keep_alive, failed = Turns(client, names.queue), client.keep_alive, []

        def fail(lease):
            if not failed:
                failed.append(lease)
                raise MemoryError
            renewed.set()
            return keep_alive(lease)

        renewed = threading.Event()
        monkeypatch.setattr(client, "keep_alive", fail)
        turn = turns.take("test", wait=True)

        assert renewed.wait(20)
        turn.end()

    def test_a_renewing_thread_that_has_died_is_replaced(self, client, names, monkeypatch):
        """If the thread that keeps a lease alive was ended by whatever error, the next turn starts another one."""
        turns = Turns(client, names.queue)
        with monkeypatch.context() as context:
            context.setattr(KeptLease, "_keep_alive", lambda self: None)
            turns.take("test", wait=True).end()
            turns._lease._thread.join()
        turns.take("test", wait=True).end()

        assert turns._lease._thread.is_alive()

    def test_a_turn_may_end_while_a_lease_is_granted(self, client, names, monkeypatch):
        """A finalizer ends the turn of a forgotten transaction wherever its thread is, such as in the next turn."""
        turns, grant = Turns(client, names.queue), client.grant
        forgotten = turns.take("test", wait=True)

        def strike(seconds):
            forgotten.end()
            return grant(seconds)

        turns._lease._ends = 0.0
        monkeypatch.setattr(client, "grant", strike)
        turns.take("test", wait=True).end()

        assert (0, 0) == (turns._lease._users, client.read(counted(names.queue, end_of(names.queue))).found[0].count)

    def test_a_lease_that_has_ended_is_replaced(self, url, client):
        """If the lease was revoked in between, the next transaction takes a new one."""
        ctx = SyncPersistentContext(url)
        with ctx.transaction() as tx:
            tx["n"] = 1
        lease = ctx._link.find().store._turns._lease
        client.revoke(lease._number)
        with ctx.transaction(timeout=5) as tx:
            tx["n"] += 1

        assert {"n": 2} == SyncPersistentContext.create(url).get_all_data()


class TestWhatWasSentWithoutAnAnswer:
    @pytest.mark.parametrize("action", ["drop", "lose", "hold"])
    def test_a_place_in_line_blocks_nobody(self, proxy, proxied, url, action):
        """If the answer to lining up is lost, nothing of it stays in line, even if the request arrives late."""
        ctx, other = SyncPersistentContext(proxied), SyncPersistentContext(url)
        ctx.incr("n")
        seen = []

        def decide(path, body):
            if any(b"/q/" in key for key in keys_put(body)) and not seen:
                seen.append(path)
                return action
            return "pass"

        proxy.decide = decide
        with ctx.transaction() as tx:
            tx["n"] += 1
        proxy.release()
        with other.transaction(timeout=5) as tx:
            tx["n"] += 1

        assert (["/v3/kv/txn"], 3) == (seen, SyncPersistentContext.create(url)["n"])

    def test_nor_is_it_blamed(self, client, names):
        """While requests are not answered, a place of this process may be what is left of one: it holds nobody up."""
        turns = Turns(client, names.queue)
        client.transact([put(names.queue + b"left", _turns._stamp("test"))])
        turns._trouble = UnreachableError({"member": "no answer in time"})
        with pytest.raises(StoreUnavailableError, match="no answer in time"):
            turns.holder(probe=False)

        assert os.getpid() == turns.holder(probe=True).pid

    def test_a_place_that_was_taken_though_refused_blocks_nobody(self, url, fill):
        """If a place in line fills etcd's store, so that it is refused as well as taken, it does not stay in line."""
        ctx, other = SyncPersistentContext(url), SyncPersistentContext(url.replace("127.0.0.1", "localhost"))
        fill(lambda body: any(b"/q/" in key for key in keys_put(body)))
        with pytest.raises(OSError, match="database space exceeded"):
            ctx.transaction().__enter__()

        with other.transaction(timeout=5) as tx:
            tx["n"] = 1

    @pytest.mark.parametrize("action", ["drop", "lose"])
    def test_the_end_of_a_turn_is_sent_again(self, proxy, proxied, url, action):
        """If the answer to the end of a turn is lost, it is sent again."""
        ctx = SyncPersistentContext(proxied)
        ctx.incr("n")
        seen = []

        def decide(path, body):
            if any("request_delete_range" in one for one in body.get("success", ())) and len(seen) < 1:
                seen.append(path)
                return action
            return "pass"

        with pytest.raises(ZeroDivisionError), ctx.transaction() as tx:
            tx["n"] = 2
            proxy.decide = decide
            raise ZeroDivisionError

        assert 2 == SyncPersistentContext(url, lock_timeout=5).incr("n")
        assert 1 == len(seen)

    def test_a_turn_whose_end_cannot_be_told_ends_with_its_lease(self, proxy, proxied, url, short_lease):
        """If the cluster cannot be reached when a turn ends, its lease is not kept alive any longer."""
        ctx = SyncPersistentContext(proxied)
        ctx.incr("n")
        with pytest.raises(ZeroDivisionError), ctx.transaction() as tx:
            tx["n"] = 2
            proxy.decide = lambda path, body: "drop"
            raise ZeroDivisionError

        assert 2 == SyncPersistentContext(url, lock_timeout=30).incr("n")

    @pytest.mark.parametrize("error", [PermissionError("no certificate"), KeyboardInterrupt()])
    def test_a_turn_whose_end_fails_ends_too(self, client, names, monkeypatch, error):
        """Whatever goes wrong when a turn ends, its lease is given up, and others get their turns."""
        turns = Turns(client, names.queue)
        turn = turns.take("test", wait=True)

        def fail(*_, **__):
            raise error

        with monkeypatch.context() as context, pytest.raises(type(error)):
            context.setattr(client, "transact", fail)
            turn.end()

        assert Turns(client, names.queue).take("test", wait=False) is not None
        assert 0 == turns._lease._users


class TestLeavingALease:
    """On leaving, the cluster is asked whether another process can have had the lease."""

    @pytest.mark.parametrize("number", [1, 8])
    def test_a_cluster_that_does_not_answer_is_asked_again(self, proxy, proxied, url, number):
        """A lease is not lost because no endpoint could be reached for a moment."""
        ctx, left = SyncPersistentContext(proxied), [DROP] * number
        with ctx.lease("job") as lease:
            proxy.decide = lambda path, body: left.pop() if left else PASS

        assert [] == left
        with SyncPersistentContext(url).lease("job", timeout=5) as other:
            assert other.token > lease.token

    def test_but_not_for_ever(self, proxy, proxied, monkeypatch):
        """If no endpoint could be reached for as long as it lives, it may have been lost, which is said."""
        monkeypatch.setattr(_leases, "LIFETIME_SECONDS", 0.5)
        ctx, began = SyncPersistentContext(proxied), time.monotonic()
        lease = ctx.lease("job")
        lease.__enter__()
        proxy.decide = lambda path, body: DROP
        with pytest.raises(LockLostError, match="another may have held the lease 'job' too: no endpoint") as caught:
            lease.__exit__(None, None, None)

        assert (ctx.place, True) == (caught.value.filepath, time.monotonic() - began > 0.5)

    def test_one_that_was_lost_is_noticed(self, url, client, names):
        """If its key is gone, the error says so, and what may be the reason."""
        lease = SyncPersistentContext(url).lease("job")
        lease.__enter__()
        (place,) = client.read(first_created(names.leases)).found[0].items
        client.transact([delete(place.key)])
        with pytest.raises(LockLostError, match="too: this process was stopped, or cut off .*, or the key "):
            lease.__exit__(None, None, None)


class TestTheLine:
    def test_it_is_followed_again_when_the_stream_breaks(self, proxy, proxied, url):
        """A waiting call notices its turn although its stream was cut off."""
        holder, waiter = SyncPersistentContext(url), SyncPersistentContext(proxied)
        with holder.transaction() as tx:
            calling = threading.Thread(target=waiter.incr, args=["n"])
            calling.start()
            line = waiter._link.find().store._turns._line
            while (stream := line._stream) is None:
                time.sleep(0.01)
            stream.interrupt()
            tx["n"] = 1
        calling.join()

        assert 2 == SyncPersistentContext.create(url)["n"]

    def test_a_turn_is_noticed_without_it(self, proxy, proxied, url, monkeypatch):
        """If the member that is followed says nothing any more, a waiting call asks for its turn now and then."""
        monkeypatch.setattr(_connections, "SILENCE_SECONDS", 60.0)
        silent = threading.Event()
        proxy.decide = lambda path, body: "drop" if path == "/v3/watch" and silent.wait(30) else "pass"
        waiter = SyncPersistentContext(proxied, lock_timeout=10)
        with SyncPersistentContext(url).transaction() as tx:
            calling = threading.Thread(target=waiter.incr, args=["n"])
            calling.start()
            while "/v3/watch" not in proxy.seen:
                time.sleep(0.01)
            tx["n"] = 1
        calling.join()
        silent.set()

        assert 2 == SyncPersistentContext.create(url)["n"]

    def test_an_old_state_does_not_count(self, client, names, monkeypatch):
        """A member that was paused may answer with a state in which the place is not yet: it is not given up."""
        monkeypatch.setattr(_turns, "_LOOK_AGAIN_SECONDS", 0.05)
        monkeypatch.setattr(Line, "_is_decided", lambda self, place: False)
        old, read, looks = client.read(first_created(names.queue), get(b"none")), client.read, []

        def look(*ranges):
            looks.append(ranges)
            return old if len(looks) == 1 else read(*ranges)

        turns, taken = Turns(client, names.queue), []
        holder = Turns(client, names.queue).take("test", wait=True)
        monkeypatch.setattr(turns, "client", mine := Client(client.gateway))
        monkeypatch.setattr(mine, "read", look)
        waiting = threading.Thread(target=lambda: taken.append(turns.take("test", wait=True)), daemon=True)
        waiting.start()
        while len(looks) < 2:
            time.sleep(0.01)

        assert 2 == read(counted(names.queue, end_of(names.queue))).found[0].count
        holder.end()
        waiting.join(30)
        taken[0].end()
        assert taken[0]._place.key.endswith(b"/0")
        assert 0 == read(counted(names.queue, end_of(names.queue))).found[0].count

    def test_a_place_that_is_thought_gone_is_left(self, client, names, monkeypatch):
        """Before a process lines up again, it makes sure that its place is gone: it must not wait for itself."""
        turns, answers = Turns(client, names.queue), [False]
        holder = Turns(client, names.queue).take("test", wait=True)

        def wait(self, place):
            holder.end()
            return answers.pop()

        monkeypatch.setattr(Turns, "_wait", wait)
        turns.take("test", wait=True).end()

        assert (0, []) == (client.read(counted(names.queue, end_of(names.queue))).found[0].count, answers)

    def test_its_thread_ends(self, url):
        """Some time after the last wait, nothing follows the line any more; closing ends that at once."""
        mine, theirs = SyncPersistentContext(url), SyncPersistentContext(url.replace("127.0.0.1", "localhost"))
        with mine.transaction():
            calling = threading.Thread(target=theirs.incr, args=["n"])
            calling.start()
            store = theirs._link.find().store
            while not store.is_waiting():
                time.sleep(0.01)
        calling.join()
        store.close()
        while store._turns._line._thread is not None:
            time.sleep(0.01)

        assert 2 == theirs.incr("n")


class TestTheStore:
    def test_a_journal_is_refused(self, store):
        """A store in etcd has no journal."""
        store.want(journal=None)
        with pytest.raises(ContextUsageError, match="etcd has no journal"):
            store.want(journal=True)

    def test_a_place_in_line_that_cannot_be_read_is_somebody_unknown(self, url, client, names):
        """A key in line that another program has put there is waited for, and deleted by nobody."""
        client.transact([put(names.queue + b"x", b"nonsense")])
        with pytest.raises(LockTimeoutError, match="an unidentified program"):
            SyncPersistentContext(url, lock_timeout=0.5).incr("n")
        client.transact([delete(names.queue + b"x")])

        assert 1 == SyncPersistentContext(url).incr("n")

    def test_a_cluster_that_is_lost_between_a_turn_and_its_state(self, proxy, proxied, url, client, names):
        """If the state cannot be read when the turn has come, it is read later."""
        ctx, other = SyncPersistentContext(proxied), SyncPersistentContext(url)
        ctx.update({"a": 1, "b": 2})
        ctx.save()
        other.delete("a")
        seen = []

        def decide(path, body):
            everything = [one["request_range"] for one in body.get("success", ()) if "request_range" in one]
            if any("min_mod_revision" not in one and one.get("sort_order") is None for one in everything):
                seen.append(path)
                return "drop" if len(seen) == 1 else "pass"
            return "pass"

        proxy.decide = decide
        with ctx.transaction() as tx:
            tx["b"] += 1

        assert len(seen) > 1
        assert {"b": 3} == SyncPersistentContext.create(url.replace("127.0.0.1", "localhost")).get_all_data()

    def test_a_wait_that_fails_leaves_the_line(self, url, client, names, monkeypatch):
        """A call that fails while it waits does not stay in line, where it would block everybody."""
        ctx, evict = SyncPersistentContext(url.replace("127.0.0.1", "localhost")), Turns._evict

        def fail(self, items):
            monkeypatch.setattr(Turns, "_evict", evict)
            raise OSError("it fails")

        with SyncPersistentContext(url).transaction() as tx:
            tx["n"] = 1
            monkeypatch.setattr(Turns, "_evict", fail)
            with pytest.raises(OSError, match="it fails"):
                ctx.transaction(timeout=20).__enter__()
            in_line = client.read(counted(names.queue, end_of(names.queue))).found[0].count

        assert (1, 2) == (in_line, ctx.incr("n"))

    def test_another_change_in_a_turn_is_not_overwritten(self, proxy, proxied, url, client, names):
        """If a commit in a turn was not carried out, and the state has changed since, nothing is written."""
        ctx = SyncPersistentContext(proxied)
        ctx.incr("n")

        def decide(path, body):
            if is_commit(body):
                proxy.decide = lambda path, body: "pass"
                client.transact([put(names.value("n"), b"10")])
                return "drop"
            return "pass"

        def transact():
            with ctx.transaction() as tx:
                tx["n"] += 1
                proxy.decide = decide

        with pytest.raises(LockLostError, match="a program that does not use this library .*; nothing was written"):
            transact()

        assert 11 == SyncPersistentContext(url).incr("n")

    def test_a_commit_in_a_turn_waits_for_the_cluster(self, proxy, proxied, url):
        """A transaction whose commit finds no endpoint is committed once one is back."""
        ctx, down = SyncPersistentContext(proxied), []

        def decide(path, body):
            down.append(path)
            return "drop" if len(down) < 8 else "pass"

        with ctx.transaction() as tx:
            tx["n"] = 1
            proxy.decide = decide

        assert {"n": 1} == SyncPersistentContext.create(url).get_all_data()

    def test_it_does_not_wait_for_ever(self, proxy, proxied, url, monkeypatch):
        """A transaction that could not be committed for long is lost, which is said; nothing was written."""
        monkeypatch.setattr(_session, "_PATIENCE_SECONDS", 0.5)
        ctx = SyncPersistentContext(proxied, lock_timeout=5)
        ctx.incr("n")

        def decide(path, body):
            return "drop" if is_commit(body) else "pass"

        def transact():
            with ctx.transaction() as tx:
                tx["n"] = 5
                proxy.decide = decide

        with pytest.raises(LockLostError, match="no endpoint of the etcd cluster carried out the call"):
            transact()

        assert 2 == SyncPersistentContext(url).incr("n")

    def test_its_leases_are_stores_of_their_own(self, store):
        """A lease says whether calls wait for it, counts nothing, and can be closed and used again."""
        lease = store.lease("job", lasting=True)
        said = [lease.is_waiting(), lease.abandon_vain_wait(), lease.traffic().commits]
        lease.close()
        session = lease.begin("test", wait=False)
        session.set_aside()
        session.close()

        assert [False, False, 0] == said
