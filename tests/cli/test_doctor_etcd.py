"""The doctor: its findings about a state in etcd."""

import json
import os
import signal

import pytest

import etcd
from commandline import run
from persistent_context import SyncPersistentContext
from persistent_context._cli.doctor_etcd import _is_faulty
from persistent_context._stores.etcd.address import parse
from persistent_context._stores.etcd.client import Client, end_of, get, put
from persistent_context._stores.etcd.gateway import Gateway

pytestmark = pytest.mark.timeout(300)


def everything(url, code=0):
    """Return all findings of the doctor, except what is known of old versions."""
    return [one for one in json.loads(run("doctor", url, "--json", code=code)) if one["subject"] != "version"]


def findings(url, code=0):
    """Return the problems and warnings: the level, the subject, and the text with the advice."""
    return [
        (f["level"], f["subject"], f"{f['text']}; {f['advice']}") for f in everything(url, code) if f["level"] != "ok"
    ]


def gateway_of(member):
    """Return the connections to a member."""
    return Gateway(parse(f"etcd://{member.endpoint}/ns"))


@pytest.fixture
def url():
    """The URL of a state that does not exist yet."""
    return etcd.url()


@pytest.fixture
def other():
    """A member of a cluster of its own, which the test may spoil."""
    etcd.require_etcd()
    member = etcd.Member("other", etcd.free_ports(2), etcd.temporary_directory()).start().until_healthy()
    yield member
    member.kill()


@pytest.fixture
def three():
    """Three members of one cluster."""
    etcd.require_etcd()
    ports, directory = etcd.free_ports(6), etcd.temporary_directory()
    cluster = ",".join(f"m{n}=http://127.0.0.1:{ports[2 * n + 1]}" for n in range(3))
    members = [etcd.Member(f"m{n}", ports[2 * n : 2 * n + 2], directory, cluster).start() for n in range(3)]
    for member in members:
        member.until_healthy()
    yield members
    for member in members:
        member.kill()


class TestDoctor:
    def test_all_is_well(self, url):
        """A healthy cluster and state have no findings, and nothing there is changed."""
        SyncPersistentContext(url).incr("n")
        client = Client(Gateway(parse(url)))
        mine = get(prefix := parse(url).namespace.encode(), end_of(prefix))
        before = client.read(mine).found
        found = {one["subject"]: one["text"] for one in everything(url)}

        assert (True, before) == (before[0].count > 0, client.read(mine).found)
        assert ["installation", "endpoint", "cluster", "majority", "state", "access", "lock"] == list(found)
        assert [] == findings(url)
        assert (True, True) == ("the leader" in found["endpoint"], " ms" in found["endpoint"]), found
        assert "keys: 1" in found["state"]

    def test_a_state_that_is_not_there_yet_is_well(self, url):
        """A namespace that nobody has used is no finding, and is still not used afterwards."""
        assert [] == findings(url)
        assert "does not exist" in run("doctor", url)
        assert not SyncPersistentContext(url)._link.find().store.snapshot().exists

    def test_the_version_that_runs_is_judged(self, url):
        """A version with a known fault is a warning for each endpoint, with the versions to use."""
        version = Client(gateway_of(etcd.member())).status(etcd.member().endpoint).version
        told = [one for one in json.loads(run("doctor", url, "--json")) if one["subject"] == "version"]

        assert _is_faulty(version) == bool(told)
        for one in told:
            assert ("warning", True, True) == (one["level"], version in one["text"], "3.5.28" in one["advice"])

    @pytest.mark.parametrize(
        ("version", "faulty"),
        [
            ("3.3.27", True),
            ("3.4.23", True),
            ("3.4.41", True),
            ("3.4.42", False),
            ("3.5.0-rc.1", True),
            ("3.5.27", True),
            ("3.5.28", False),
            ("3.6.8", True),
            ("3.6.9", False),
            ("3.7.0", False),
            ("4.0.0", False),
            ("unknown", True),
        ],
    )
    def test_versions(self, version, faulty):
        """The fault is known of the versions before those in which it was mended."""
        assert faulty == _is_faulty(version)

    def test_each_endpoint_is_asked(self, three):
        """All members are shown, of which one is the leader; they belong to one cluster."""
        url = f"etcd://{','.join(one.endpoint for one in three)}/ns"
        told = [one["text"] for one in everything(url) if one["subject"] == "endpoint"]

        assert [one.endpoint for one in three] == [text.partition(": ")[0] for text in told]
        assert (1, 2) == tuple(sum(role in text for text in told) for role in ("the leader", "a follower"))
        assert [] == findings(url)

    def test_members_that_fail(self, three):
        """A member that is gone is a warning while a majority works; without one, nothing works, and that is said."""
        url = f"etcd://{','.join(one.endpoint for one in three)}/ns"
        SyncPersistentContext(url).incr("n")
        three[0].kill()
        SyncPersistentContext(url).incr("n")  # there is a leader
        ((level, subject, text),) = findings(url)

        assert ("warning", "endpoint", True) == (level, subject, f"{three[0].endpoint} does not answer" in text)
        three[1].send(signal.SIGSTOP)
        found = findings(url, code=1)
        assert [("problem", "endpoint")] * 3 + [("problem", "majority")] == [one[:2] for one in found], found
        assert (True, True) == ("Connection refused" in found[0][2], "no answer in time" in found[1][2]), found
        assert (True, True) == (f"{three[2].endpoint}: etcd " in found[2][2], "; a read failed: " in found[2][2]), found

    def test_two_clusters(self, other, url):
        """Endpoints of different clusters would show different states to different processes."""
        both = url.replace("/test", f",{other.endpoint}/test")
        ((level, subject, text),) = findings(both, code=1)

        assert ("problem", "cluster", True) == (level, subject, "different clusters" in text and other.endpoint in text)

    def test_one_member_twice(self, url):
        """Two names of one member are not two members."""
        port = etcd.member().port
        ((level, subject, text),) = findings(url.replace("/test", f",localhost:{port}/test"))

        assert ("warning", "cluster", True) == (level, subject, "are the same member" in text)

    def test_a_full_database(self, other):
        """A member that is out of space is a problem, with what to do."""
        gateway_of(other).ask(other.endpoint, "/v3/maintenance/alarm", {"action": "ACTIVATE", "alarm": "NOSPACE"})
        found = findings(f"etcd://{other.endpoint}/ns", code=1)

        assert [("problem", "alarm"), ("problem", "access")] == [one[:2] for one in found], found
        assert [True, True] == ["etcdctl alarm disarm" in text for _, _, text in found]

    @pytest.mark.parametrize("key", [b"k/bad", b"m"])
    def test_what_is_not_valid(self, url, key):
        """What another program has put into the namespace is named, and left."""
        name = f"{url.rpartition('/')[2]}/".encode() + key
        client = Client(Gateway(parse(url)))
        client.transact([put(name, b"{")])
        ((level, subject, text),) = findings(url, code=1)

        assert ("problem", "state", True) == (level, subject, repr(name.decode()) in text and "etcdctl" in text)
        assert b"{" == client.read(get(name)).found[0].items[0].value

    def test_the_holder_of_the_lock(self, url, hold_transaction):
        """The process in a transaction is shown; one that is stopped is a warning with the way to resume it."""
        with hold_transaction(url) as held:
            told = [one["text"] for one in everything(url) if one["subject"] == "lock"]
            assert [True] == [f"held by process {held.pid} on " in text for text in told]
            if not os.path.exists("/proc/self/stat"):
                pytest.skip("/proc shows that a process is stopped")
            os.kill(held.pid, signal.SIGSTOP)
            try:
                found = findings(url)
            finally:
                os.kill(held.pid, signal.SIGCONT)

        assert [("warning", "lock", True)] == [(*one[:2], f"kill -CONT {held.pid}" in one[2]) for one in found]

    def test_permissions(self, other):
        """A user who may not use the namespace, or only read it, or has a wrong password, is told so."""
        gateway = gateway_of(other)
        for path, body in (
            ("user/add", {"name": "root", "password": "wheel"}),
            ("user/grant", {"user": "root", "role": "root"}),
            ("user/add", {"name": "reader", "password": "pencil"}),
            ("role/add", {"name": "app"}),
            ("role/grant", {"name": "app", "perm": {"permType": "READ", "key": "YXBwLw==", "range_end": "YXBwMA=="}}),
            ("user/grant", {"user": "reader", "role": "app"}),
            ("enable", {}),
        ):
            gateway.ask(other.endpoint, f"/v3/auth/{path}", body)
        url = f"etcd://reader:pencil@{other.endpoint}"

        assert [("problem", "access")] == [one[:2] for one in findings(f"{url}/app", code=1)]
        assert [("problem", "endpoint", True)] == [
            (*one[:2], "a read was refused: etcdserver: permission denied" in one[2])
            for one in findings(f"{url}/elsewhere", code=1)
        ]
        assert [("problem", "endpoint", True)] == [
            (*one[:2], "refuses this user: " in one[2])
            for one in findings(url.replace("pencil", "chalk") + "/app", code=1)
        ]

    def test_certificates_that_are_missing(self, url):
        """A file that cannot be read is named; nothing is asked without it."""
        found = findings(f"{url.replace('etcd://', 'etcd+tls://')}?ca=/no/such/ca.pem", code=1)

        assert [("problem", "certificates", "/no/such/ca.pem cannot be read: No such file or directory; ")] == found

    def test_a_server_that_is_not_etcd(self, url):
        """The endpoint is named, with what came instead of an answer."""
        found = findings(url.replace("etcd://", "etcd+tls://"), code=1)

        assert [("problem", "endpoint"), ("problem", "majority")] == [one[:2] for one in found], found
        assert "Traceback" not in found[0][2]
