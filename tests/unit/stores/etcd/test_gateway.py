"""Endpoints in turn, time limits, users and certificates; what cannot be reached is named, and credentials are not."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import shutil
import socket
import subprocess
import threading
import time
from typing import NamedTuple

import pytest
from urllib3.connection import HTTPConnection

import etcd
from etcdproxy import keys_put
from persistent_context import LockTimeoutError, PersistentContext, StoreUnavailableError, SyncPersistentContext
from persistent_context._stores.etcd import connections as _connections
from persistent_context._stores.etcd.address import parse
from persistent_context._stores.etcd.client import Client
from persistent_context._stores.etcd.connections import Connections
from persistent_context._stores.etcd.failures import RefusedError, UnansweredError, UnreachableError
from persistent_context._stores.etcd.feed import watch
from persistent_context._stores.etcd.gateway import Gateway

PASSWORD = "pa:ss@word"
USER = "ann"
WRONG_USER, WRONG_PASSWORD = "nobody", "hunter2"


FORK_WHILE_READING = """
import os, ssl, sys, threading
from persistent_context._stores.etcd.address import parse
from persistent_context._stores.etcd.client import Client
from persistent_context._stores.etcd.failures import UnreachableError
from persistent_context._stores.etcd.gateway import Gateway
client, create = Client(Gateway(parse(sys.argv[1]))), ssl.create_default_context
def ask():
    try:
        client.transact([])
    except UnreachableError:
        pass
def pause(**options):
    reading.set()
    threading.Event().wait()
reading, ssl.create_default_context = threading.Event(), pause
threading.Thread(target=ask, daemon=True).start()
reading.wait()
child = os.fork()
if child == 0:
    ssl.create_default_context = create
    ask()
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class _Answer(NamedTuple):
    status: int
    data: bytes


@pytest.fixture
def dead():
    """An endpoint at which nobody listens."""
    (port,) = etcd.free_ports(1)
    return f"127.0.0.1:{port}"


def at(url, *endpoints):
    """Return the URL of the same namespace at other endpoints."""
    return f"etcd://{','.join(endpoints)}/{parse(url).namespace}"


class TestEndpoints:
    def test_those_that_are_down_are_passed_over(self, url, dead):
        """As long as one endpoint answers, calls succeed, and later ones ask it first."""
        ctx = SyncPersistentContext(at(url, dead, etcd.member().endpoint))
        for _ in range(3):
            ctx.incr("n")

        assert {"n": 3} == SyncPersistentContext.create(url).get_all_data()

    def test_one_that_does_not_answer_is_passed_over(self, proxy, url, monkeypatch):
        """An endpoint that accepts connections and says nothing costs one time limit, not every call."""
        monkeypatch.setattr(_connections, "ANSWER_SECONDS", 0.3)
        silent, seen = threading.Event(), []

        def decide(path, body):
            seen.append(path)
            silent.wait(30)
            return "drop"

        proxy.decide = decide
        ctx = SyncPersistentContext(at(url, proxy.endpoint, etcd.member().endpoint))
        for _ in range(3):
            ctx.incr("n")
        silent.set()

        assert ({"n": 3}, 1) == (SyncPersistentContext.create(url).get_all_data(), len(seen))

    def test_if_none_can_be_reached_calls_wait_and_name_them(self, url, dead):
        """Calls wait up to their timeout, and then say which endpoints did not answer, and why."""
        ctx = SyncPersistentContext(at(url, dead, "127.0.0.1:1"), lock_timeout=0.5)
        calls = [
            ctx.load,
            ctx.lock_holder,
            lambda: ctx.incr("n"),
            lambda: ctx.transaction().__enter__(),
            lambda: ctx.add("a", 1),
        ]
        for call in calls:
            with pytest.raises(StoreUnavailableError, match="Connection refused") as caught:
                call()

            assert ({dead, "127.0.0.1:1"}, ctx.place) == (caught.value.endpoints.keys(), caught.value.filepath)
            assert isinstance(caught.value, TimeoutError)
            assert dead in str(caught.value)
        assert not isinstance(caught.value, LockTimeoutError)

    async def test_the_loop_is_not_held_up(self, url, dead):
        """While calls wait for a cluster, the event loop runs."""
        ctx, ticks = PersistentContext(at(url, dead), lock_timeout=0.5), 0
        call = asyncio.create_task(ctx.incr("n"))
        while not call.done():
            ticks += 1
            await asyncio.sleep(0.01)
        with pytest.raises(StoreUnavailableError):
            await call

        assert ticks > 10

    def test_a_call_that_only_tries_does_not_wait(self, url, dead):
        """With a timeout of zero, a call fails as soon as no endpoint has answered, and is not carried out later."""
        ctx = SyncPersistentContext(at(url, dead), lock_timeout=0)
        with pytest.raises(StoreUnavailableError):
            ctx.incr("n")

    def test_not_even_while_an_earlier_call_is_still_tried(self, face, url, dead):
        """Nor does it wait for the thread of an earlier call, which goes on trying after that one has timed out."""
        ctx = face.cls(at(url, dead), lock_timeout=0.3)

        def transact():
            face.inside(lambda: ctx.transaction(timeout=0), lambda tx: None)

        def hold(**options):
            face.inside(lambda: ctx.lease("job", **options), lambda lease: None)

        calls = [
            lambda: face.do(ctx.incr, "n"),
            transact,
            lambda: face.do(face.cls(at(url, dead), lock_timeout=0).incr, "n"),
            lambda: hold(timeout=0.3),
            lambda: hold(timeout=0),
            lambda: hold(wait=False),
        ]
        for call in calls:
            with pytest.raises(StoreUnavailableError, match=dead):
                call()

    def test_when_one_comes_back_waiting_calls_succeed(self, proxy, proxied, url):
        """A call that waits for the cluster is carried out once it can be reached."""
        ctx = SyncPersistentContext(proxied)
        ctx.incr("n")
        proxy.decide = lambda path, body: "drop"
        seen = len(proxy.seen)
        calling = threading.Thread(target=ctx.incr, args=["n"])
        calling.start()
        while len(proxy.seen) < seen + 5:
            time.sleep(0.01)
        proxy.decide = lambda path, body: "pass"
        calling.join()

        assert 2 == SyncPersistentContext.create(url)["n"]

    @pytest.mark.parametrize("action", ["drop", "lose"])
    def test_if_nobody_can_get_in_line_the_cluster_is_why(self, proxy, proxied, action):
        """If only the requests to get in line are not answered, calls say so, rather than that the lock is free."""
        ctx = SyncPersistentContext(proxied, lock_timeout=0.5)
        proxy.decide = lambda path, body: action if keys_put(body) else "pass"
        tries = ctx.transaction(timeout=0), ctx.lease("a", wait=False)
        for call in ctx.transaction(), ctx.lease("b", timeout=0.5), *tries:
            with pytest.raises(StoreUnavailableError, match=proxy.endpoint):
                call.__enter__()
        proxy.decide = lambda path, body: "pass"
        with ctx.transaction():
            pass

        assert ctx._link.find().store.holder(probe=False) is None

    def test_many_requests_at_once_are_no_trouble(self, url, caplog):
        """More connections than are kept are closed when they are no longer needed, without a warning."""
        pool = Connections(parse(url))._pool(etcd.member().endpoint)
        used = [pool._get_conn() for _ in range(40)]
        for connection in used:
            connection.connect()
        for connection in used:
            pool._put_conn(connection)
        closed = [connection.is_closed for connection in used]
        pool.close()

        assert ([False] * 32 + [True] * 8, "") == (closed, caplog.text)

    def test_a_name_that_does_not_exist_is_named(self):
        """A wrong host is reported as such."""
        with pytest.raises(StoreUnavailableError, match=r"no-such-host\.invalid:2379"):
            SyncPersistentContext.create("etcd://no-such-host.invalid/app", lock_timeout=0.2)

    def test_who_holds_the_turn_is_unknown_while_none_can_be_reached(self, url, dead):
        """Asking for the holder says that the cluster cannot be reached."""
        with pytest.raises(StoreUnavailableError, match=dead):
            SyncPersistentContext(at(url, dead)).lock_holder()

    def test_streams_pass_over_those_that_are_down(self, url, dead, proxy):
        """A waiting call follows the queue at an endpoint that answers; if none does, it goes on trying."""
        proxy.decide = lambda path, body: "drop" if path == "/v3/watch" else "pass"
        holder = SyncPersistentContext(url)
        waiter = SyncPersistentContext(at(url, dead, proxy.endpoint))
        with holder.transaction() as tx:
            calling = threading.Thread(target=waiter.incr, args=["n"])
            calling.start()
            while proxy.seen.count("/v3/watch") < 2:
                time.sleep(0.01)
            proxy.decide = lambda path, body: "pass"
            tx["n"] = 1
        calling.join()

        assert 2 == SyncPersistentContext.create(url)["n"]

    def test_a_cluster_that_is_too_busy_is_tried_again(self, proxied, url, monkeypatch):
        """A request that a member refuses as it has too many is not carried out, and is made again."""
        ctx, busy, error = SyncPersistentContext(proxied), [1, 1], _connections._error
        ctx.incr("n")
        ask = Connections._post

        def post(self, endpoint, path, body, token, **options):
            if busy:
                busy.pop()
                raise error(_Answer(429, b'{"error": "etcdserver: too many requests", "code": 8}'), endpoint)
            return ask(self, endpoint, path, body, token, **options)

        monkeypatch.setattr(Connections, "_post", post)

        assert 2 == ctx.incr("n")

    @pytest.mark.parametrize("content", [b"<html>", b"[]", b""])
    def test_an_answer_that_is_none_of_etcd_is_named(self, url, monkeypatch, content):
        """An HTTP server that answers every request with success, but is not etcd, is reported."""
        monkeypatch.setattr(Connections, "_post", lambda *_, **__: _Answer(200, content))
        with pytest.raises(StoreUnavailableError, match="the response is not from etcd"):
            SyncPersistentContext.create(url, lock_timeout=0.2)

    def test_a_program_that_is_not_etcd_is_named(self, url, proxy):
        """An HTTP server that does not know etcd's methods is reported."""
        member = etcd.member()
        client = Client(Gateway(parse(at(url, member.endpoint))))
        with pytest.raises((UnreachableError, UnansweredError), match="the response is not from etcd"):
            client.gateway.call("/nothing", {}, repeatable=True)


@pytest.fixture
def small_buffers():
    """Connections whose buffers are small: what is sent has to be received."""
    option = (socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    HTTPConnection.default_socket_options.append(option)
    yield
    HTTPConnection.default_socket_options.remove(option)


@pytest.fixture
def slow():
    """An endpoint that passes on what it receives, and pauses in the middle of large requests."""

    def pump(source, target):
        received = 0
        with contextlib.suppress(OSError), source, target:
            while data := source.recv(65536):
                target.sendall(data)
                received += len(data)
                if received > 500_000:
                    time.sleep(0.6)
                    received = 0

    def serve():
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                member = socket.create_connection(("127.0.0.1", etcd.member().port))
                for ends in ((client, member), (member.dup(), client.dup())):
                    threading.Thread(target=pump, args=ends, daemon=True).start()

    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


class TestASlowNetwork:
    def test_a_large_change_has_time_to_be_sent(self, url, slow, small_buffers, monkeypatch):
        """A request may take as long as its size allows to be sent, not just as long as connecting may take."""
        monkeypatch.setattr(_connections, "CONNECT_SECONDS", 0.3)
        ctx = SyncPersistentContext(at(url, slow), lock_timeout=2)
        ctx["large"] = "x" * 600_000
        ctx.save()

        assert 600_000 == len(SyncPersistentContext.create(url)["large"])


class TestAMemberThatIsCutOff:
    def test_it_does_not_answer_reads(self, tmp_path):
        """A member without a majority does not show its own state, which may be out of date; writes wait, too."""
        with etcd.cluster(3, tmp_path) as members:
            place = f"etcd://{members[0].endpoint}/app"
            SyncPersistentContext(place).incr("n")
            for member in members[1:]:
                member.kill()
            ctx = SyncPersistentContext(place, lock_timeout=1)
            for call in (ctx.load, lambda: ctx.incr("n")):
                with pytest.raises(StoreUnavailableError, match=members[0].endpoint):
                    call()


def control(member, *words, text=""):
    """Run etcdctl."""
    command = ["etcdctl", "--endpoints", member.endpoint, *words]
    environment = {"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin"}
    subprocess.run(command, env=environment, input=text.encode(), capture_output=True, check=True)


@pytest.fixture(scope="module")
def guarded():
    """A member that requires a user."""
    etcd.require_etcd()
    member = etcd.Member("guarded", etcd.free_ports(2), etcd.temporary_directory()).start().until_healthy()

    run = functools.partial(control, member)
    for name in ("root", USER):
        run("user", "add", f"{name}:{PASSWORD}" if name == "root" else name, "--interactive=false", text=PASSWORD)
    run("role", "add", "app")
    run("role", "grant-permission", "app", "--prefix=true", "readwrite", "app/")
    run("user", "grant-role", USER, "app")
    run("user", "grant-role", "root", "root")
    run("auth", "enable")
    yield member
    member.kill()


class TestUsers:
    @pytest.fixture(autouse=True)
    def environment(self, monkeypatch):
        """The user and the password are in the environment."""
        monkeypatch.setenv("PERSISTENT_CONTEXT_ETCD_USER", USER)
        monkeypatch.setenv("PERSISTENT_CONTEXT_ETCD_PASSWORD", PASSWORD)

    def test_one_may_use_what_is_granted(self, guarded):
        """A user with the right to the keys of a namespace can do everything there."""
        ctx = SyncPersistentContext(f"etcd://{guarded.endpoint}/app")
        with ctx.transaction() as tx:
            tx["n"] = 1
        with ctx.lease("job"):
            ctx.incr("n")

        assert {"n": 2} == SyncPersistentContext.create(f"etcd://{guarded.endpoint}/app").get_all_data()

    def test_one_may_not_use_anything_else(self, guarded):
        """The cluster's refusal is reported, with the place."""
        ctx = SyncPersistentContext(f"etcd://{guarded.endpoint}/other")
        for call in ctx.load, ctx.lock_holder, lambda: ctx.incr("n"), lambda: ctx.lease("job").__enter__():
            with pytest.raises(OSError, match="permission denied") as caught:
                call()

            assert ctx.place == caught.value.filepath

    def test_a_watch_says_that_it_may_no_longer_read(self, guarded):
        """A watch whose user has lost the right to its keys ends with the cluster's refusal when its stream breaks."""
        role = functools.partial(control, guarded, "--user", f"root:{PASSWORD}", "role")
        role("grant-permission", "app", "--prefix=true", "readwrite", "revoked/")
        changes, errors = SyncPersistentContext.create(f"etcd://{guarded.endpoint}/revoked").watch("n"), []

        def follow():
            try:
                next(changes)
            except OSError as error:
                errors.append(str(error))

        following = threading.Thread(target=follow, daemon=True)
        following.start()
        while changes._subscribed is None or (stream := changes._subscribed[1]._stream) is None:
            time.sleep(0.01)
        role("revoke-permission", "app", "--prefix=true", "revoked/")
        stream.interrupt()
        following.join(20)

        assert ["permission denied"] == [error.rpartition(": ")[2] for error in errors]

    def test_a_stream_that_is_refused_says_why(self, guarded):
        """The reason of the cluster is reported, rather than that of another refusal."""
        client = Client(Gateway(parse(f"etcd://{guarded.endpoint}/other")))
        with pytest.raises(RefusedError, match="permission denied") as caught, watch(client, b"other/", b"", 1) as feed:
            next(feed[1])

        assert "compacted" not in str(caught.value)

    def test_a_token_that_has_expired_is_replaced(self, guarded):
        """A call whose token is no longer valid gets another one."""
        ctx = SyncPersistentContext(f"etcd://{guarded.endpoint}/app")
        ctx["expired"] = 1
        ctx.save()
        ctx._link.find().store._gateway._token = "invalid"
        ctx["expired"] = 2
        ctx.save()

        assert 2 == SyncPersistentContext.create(f"etcd://{guarded.endpoint}/app")["expired"]

    def test_a_wrong_password_is_refused_and_shown_nowhere(self, guarded, caplog, capsys):
        """The error says that the user or the password is wrong; neither appears in it, nor in any log."""
        caplog.set_level(logging.DEBUG)
        ctx = SyncPersistentContext(f"etcd://{WRONG_USER}:{WRONG_PASSWORD}@{guarded.endpoint}/app/wrong")
        with pytest.raises(OSError, match="invalid user ID or password") as caught:
            ctx.load()
        shown = f"{caught.value!r} {ctx!r} {caplog.text} {capsys.readouterr()} {caught.getrepr(showlocals=True)}"

        assert [False, False] == [word in shown for word in (WRONG_PASSWORD, WRONG_USER)]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """An authority, and certificates of a server and a client."""
    directory = tmp_path_factory.mktemp("certificates")

    def openssl(*words):
        subprocess.run(["openssl", *words], cwd=directory, check=True, capture_output=True)

    new_key = ("-newkey", "rsa:2048", "-nodes", "-days", "2")
    openssl("req", "-x509", *new_key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca",
            "-addext", "keyUsage=critical,keyCertSign")  # fmt: skip
    for name in ("server", "client"):
        openssl("req", *new_key[:3], "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        usage = "extendedKeyUsage=serverAuth,clientAuth\nsubjectAltName=IP:127.0.0.1\n"
        (directory / "extensions").write_text(usage)
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                "-days", "2", "-out", f"{name}.pem", "-extfile", "extensions")  # fmt: skip
    return directory


def files_in(directory):
    """Return the options of a URL that name the authority and the client's certificate and key in a directory."""
    return f"ca={directory / 'ca.pem'}&cert={directory / 'client.pem'}&key={directory / 'client.key'}"


class TestCertificates:
    @pytest.fixture
    def encrypted(self, certificates, tmp_path):
        """A member that asks for certificates."""
        etcd.require_etcd()
        options = [
            "--cert-file", str(certificates / "server.pem"), "--key-file", str(certificates / "server.key"),
            "--trusted-ca-file", str(certificates / "ca.pem"), "--client-cert-auth",
        ]  # fmt: skip
        member = etcd.Member("tls", etcd.free_ports(2), tmp_path, more=options).start()
        SyncPersistentContext(f"etcd+tls://{member.endpoint}/up?{files_in(certificates)}").incr("n")  # until it listens
        yield member
        member.kill()

    def test_both_sides_show_theirs(self, encrypted, certificates):
        """With the authority and a certificate of its own, a client is served."""
        ctx = SyncPersistentContext(f"etcd+tls://{encrypted.endpoint}/app?{files_in(certificates)}")

        assert [1, 2] == [ctx.incr("n"), ctx.incr("n")]

    def test_a_server_that_is_not_trusted_gets_nothing(self, encrypted, certificates):
        """Without the authority, the server's certificate is not accepted, and the error says so."""
        with pytest.raises(StoreUnavailableError, match="certificate verify failed"):
            SyncPersistentContext.create(f"etcd+tls://{encrypted.endpoint}/app", lock_timeout=0.2)

    def test_what_fails_after_the_handshake_may_have_arrived(self, encrypted, certificates):
        """A member that misses the client's certificate says so when the request is on its way."""
        client = Client(Gateway(parse(f"etcd+tls://{encrypted.endpoint}/app?ca={certificates / 'ca.pem'}")))
        with pytest.raises(UnansweredError):
            client.transact([])

    def test_they_are_read_once(self, encrypted, certificates, dead, tmp_path):
        """Another endpoint is asked with the certificates that were read for the first one, even if they are gone."""
        copy = shutil.copytree(certificates, tmp_path / "copy")
        client = Client(Gateway(parse(f"etcd+tls://{dead},{encrypted.endpoint}/app?{files_in(copy)}")))
        with pytest.raises(UnreachableError):
            client.status(dead)
        shutil.rmtree(copy)

        assert client.transact([]).succeeded

    def test_a_fork_while_they_are_read_does_no_harm(self, certificates, run):
        """A child that is forked while another thread reads them reads them itself."""
        place = f"etcd+tls://127.0.0.1:1/app?{files_in(certificates)}"

        assert ["0"] == run(FORK_WHILE_READING, place)

    def test_a_missing_file_is_named(self, certificates):
        """A wrong path of a certificate is an error that names it."""
        with pytest.raises(FileNotFoundError, match=r"missing\.pem"):
            SyncPersistentContext.create("etcd+tls://127.0.0.1:1/app?ca=/missing.pem", lock_timeout=0.2)
