"""The commands on a state in etcd."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import etcd
from commandline import COMMAND, outcome, run
from persistent_context import SyncPersistentContext
from persistent_context._stores.etcd.address import parse
from persistent_context._stores.etcd.client import Client, put
from persistent_context._stores.etcd.gateway import Gateway

pytestmark = pytest.mark.timeout(300)

PAGE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
USER, PASSWORD = "worker", "pencil@/%:19"
QUOTED = "pencil%40%2F%25%3A19"
NOWHERE = "127.0.0.1:1"
COMMANDS = [
    ["show"],
    ["get", "n"],
    ["keys"],
    ["set", "n", "1"],
    ["append", "items", "1"],
    ["take", "n"],
    ["incr", "n"],
    ["delete", "n"],
    ["edit"],
    ["who"],
    ["doctor"],
    ["doctor", "--json"],
    ["restore", "copy.json"],
    ["copy", "copy.json", "--force"],
]
"""Those that take a URL, except watch, which does not end by itself."""
WRONG_USAGE = [["journal"], ["checkpoint"], ["get", "n", "--no-such-option"], ["who", "too", "many"], ["set", "n"]]


@pytest.fixture
def url():
    """The URL of a state that does not exist yet."""
    return etcd.url()


@pytest.fixture
def client(url):
    """The cluster."""
    return Client(Gateway(parse(url)))


@pytest.fixture(scope="module")
def guarded():
    """A member that requires a user, who may use the namespaces below ``app/``."""
    etcd.require_etcd()
    member = etcd.Member("guarded", etcd.free_ports(2), etcd.temporary_directory()).start().until_healthy()
    gateway = Gateway(parse(f"etcd://{member.endpoint}/app"))
    permission = {"permType": "READWRITE", "key": "YXBwLw==", "range_end": "YXBwMA=="}  # app/, app0
    for path, body in (
        ("user/add", {"name": "root", "password": "wheel"}),
        ("user/grant", {"user": "root", "role": "root"}),
        ("user/add", {"name": USER, "password": PASSWORD}),
        ("role/add", {"name": "app"}),
        ("role/grant", {"name": "app", "perm": permission}),
        ("user/grant", {"user": USER, "role": "app"}),
        ("enable", {}),
    ):
        gateway.ask(member.endpoint, f"/v3/auth/{path}", body)
    yield member
    member.kill()


def printed_by(*arguments):
    """Run a command that may print its traceback; return its exit code and all that it printed."""
    code, output, errors = outcome("--verbose", *arguments, env={**os.environ, "EDITOR": "sed -i s/1/2/"})
    return code, output + errors


class TestCommands:
    def test_each_works_as_on_a_file(self, url):
        """What one command stores, the next one and other programs see; the order of the keys is kept."""
        run("set", url, "cursor", "42")
        run("set", url, "älice/x y", "text", encoding="utf-8")
        run("append", url, "jobs", '{"a": null}')
        printed = [run("incr", url, "hits", "-3"), run("append", url, "jobs", "b"), run("take", url, "hits")]
        run("delete", url, "cursor")
        held = SyncPersistentContext.create(url)

        assert ["-3\n", "2\n", "-3\n"] == printed
        assert [("älice/x y", "text"), ("jobs", [{"a": None}, "b"])] == list(held.items())
        assert 'älice/x y\t"text"\njobs\t[{"a": null}, "b"]\n' == run("show", url, encoding="utf-8")
        assert "text\n" == run("get", url, "älice/x y", encoding="utf-8")
        assert '["älice/x y", "jobs"]\n' == run("keys", url, "--json", encoding="utf-8")
        assert dict(held) == json.loads(run("show", url, "--json"))

    def test_edit_merges(self, url):
        """What the editor changes is saved, of the whole state or of one key, and nothing else."""
        ctx = SyncPersistentContext.create(url)
        ctx.update({"a": 1, "b": [1]})
        ctx.save()
        write = f"""{sys.executable} -c 'from persistent_context import *; SyncPersistentContext("{url}").incr("c")'"""
        environment = {**os.environ, "EDITOR": f"sh -c {shlex.quote(f'sed -i s/1/2/ $1; {write}')} sh"}

        assert "keys changed: 2\n" == run("edit", url, env=environment)
        assert "keys changed: 1\n" == run("edit", url, "b", env={**os.environ, "EDITOR": "sed -i s/2/3/"})
        ctx.load()
        assert {"a": 2, "b": [3], "c": 1} == ctx.get_all_data()

    def test_watch_prints_what_others_change(self, url):
        """A namespace that does not exist is waited for, with a message; then the change is printed."""
        with subprocess.Popen(
            [*COMMAND, "watch", url, "--count=1", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as watching:
            said = watching.stderr.readline()
            SyncPersistentContext(url).incr("n")
            output, errors = watching.communicate()

        assert (f"{url} does not exist yet: waiting for it\n", "") == (said, errors)
        assert {"key": "n", "new": 1} == json.loads(output)

    def test_the_holder_is_named(self, url, hold_transaction):
        """The process in a transaction is shown, and a call that gives up names it, with an exit code of its own."""
        with hold_transaction(url) as held:
            assert f"held by process {held.pid} on " in run("who", url)
            errors = rf"error: {url}: could not get the lock within [^\n]* \(held by process {held.pid} on [^\n]*\n"
            run("incr", url, "n", "--timeout=0.5", code=3, errors=errors)
        assert "no process holds the lock\n" == run("who", url)

    def test_a_missing_state_is_an_error_and_stays_missing(self, url):
        """A mistyped namespace is not taken for an empty state, and is not created."""
        for command in (["show"], ["get", "n"], ["take", "n"], ["delete", "n"], ["edit"]):
            run(command[0], url, *command[1:], code=1, errors=f"error: {url} does not exist\n",
                env={**os.environ, "EDITOR": "true"})  # fmt: skip

        assert f"no process holds the lock; {url} does not exist\n" == run("who", url)
        assert not SyncPersistentContext(url)._link.find().store.snapshot().exists

    def test_restore_adds_what_is_missing(self, url, path):
        """Keys of a repaired file are added to a state in etcd, and the other way round."""
        path.write_text('{"a": 1, "b": 2}', encoding="utf-8")
        run("set", url, "b", "3")

        assert "keys added: 1; keys already present: 1\n" == run("restore", url, path)
        run("set", url, "c", "4")
        assert "keys added: 1; keys already present: 2\n" == run("restore", path, url)
        assert {"a": 1, "b": 2, "c": 4} == json.loads(path.read_text(encoding="utf-8"))

    @pytest.mark.parametrize("command", [["show"], ["get", "n"], ["set", "n", "1"], ["edit"], ["watch"], ["take", "n"]])
    def test_what_is_not_valid_is_named_and_left(self, url, client, command):
        """The error names the key of etcd, and what to do; the value stays."""
        name = url.rpartition("/")[2]
        client.transact([put(f"{name}/k/bad".encode(), b"{")])
        code, printed = printed_by(command[0], url, *command[1:])

        assert (1, True) == (code, f"'{name}/k/bad' does not have a JSON value" in printed), printed
        assert ("etcdctl" in printed, "Traceback" in printed, url in printed) == (True, False, True)

    @pytest.mark.parametrize("name", ["journal", "checkpoint"])
    def test_what_is_about_files_refuses_a_url(self, url, name, tmp_path):
        """It is wrong usage, and no file comes of it."""
        run(name, url, code=2, errors=".*only a file can have a journal.*", cwd=tmp_path)

        assert [] == os.listdir(tmp_path)

    @pytest.mark.parametrize(
        "text", ["etcd://host", "etcd://host:x/ns", "etcd://u@host/ns", "etcds://u:secret@host/ns", "https://host/ns"]
    )
    def test_a_mistyped_url_is_not_taken_for_a_file(self, text, tmp_path):
        """It is wrong usage, and no file or folder of that name is made."""
        run("set", text, "a", "1", code=2, errors=r".*Invalid value for 'FILE'.*etcd://.*", cwd=tmp_path)

        assert [] == os.listdir(tmp_path)

    @pytest.mark.parametrize("command", ["show", "who", "set", "doctor"])
    def test_without_its_package_it_says_what_to_install(self, command, url, tmp_path):
        """One line names the extra."""
        (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['urllib3'] = None", encoding="utf-8")
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
        rest = ["a", "1"] if command == "set" else []

        run(command, url, *rest, code=1, errors=r"error: [^\n]*the extra 'etcd'[^\n]*pip install '\.\[etcd\]'\n",
            env=environment)  # fmt: skip


class TestSecrets:
    """The user and the password are used, and never shown."""

    @pytest.fixture(autouse=True)
    def folder(self, tmp_path, monkeypatch):
        """A file to copy and restore from."""
        monkeypatch.chdir(tmp_path)
        Path("copy.json").write_text('{"a": 1}', encoding="utf-8")

    @pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
    def test_right_ones(self, guarded, command):
        """Every command gets access with them, and prints the URL without them."""
        secret = f"etcd://{USER}:{QUOTED}@{guarded.endpoint}/app/{command[0]}"
        ctx = SyncPersistentContext(secret)
        ctx["n"] = 1
        ctx.save()
        code, printed = printed_by(command[0], secret, *command[1:])

        assert 0 == code, printed
        assert [] == [word for word in (USER, PASSWORD, QUOTED, "pencil") if word in printed], printed

    @pytest.mark.parametrize("command", [*COMMANDS, ["watch"]], ids=" ".join)
    def test_wrong_ones(self, guarded, command):
        """The error of every command says that they are wrong, without them."""
        code, printed = printed_by(command[0], f"etcd://{USER}:secret%2Fword@{guarded.endpoint}/app/x", *command[1:])

        assert (1, True) == (code, "invalid user ID or password" in printed), printed
        assert guarded.endpoint in printed
        assert [] == [word for word in (USER, "secret", "Traceback") if word in printed], printed

    @pytest.mark.parametrize("command", WRONG_USAGE, ids=" ".join)
    def test_wrong_usage(self, command):
        """The error of a wrong usage does not show them."""
        code, printed = printed_by(command[0], f"etcd://{USER}:secret%2Fword@{NOWHERE}/app/x", *command[1:])

        assert 2 == code, printed
        assert [] == [word for word in (USER, "secret", "Traceback") if word in printed], printed

    @pytest.mark.parametrize("command", [["show"], ["set", "n", "1", "--timeout=1"], ["who"]], ids=" ".join)
    def test_without_a_cluster(self, command):
        """The error names the endpoint and the reason, and the exit code is that of a lock that is not free."""
        code, printed = printed_by(command[0], f"etcd://{USER}:secret%2Fword@{NOWHERE}/app/x", *command[1:])

        assert (3, True) == (code, f"{NOWHERE}: Connection refused" in printed), printed
        assert [] == [word for word in (USER, "secret", "Traceback") if word in printed], printed

    @pytest.mark.parametrize(
        "words",
        [
            ["show", "copy.json", "URL"],
            ["URL", "show"],
            ["get", "copy.json", "URL"],
            ["take", "copy.json", "URL"],
            ["copy", "copy.json", "other.json", "URL"],
            ["show", "--option=URL"],
            ["show", "s3+URL"],
        ],
        ids=" ".join,
    )
    def test_in_a_wrong_place(self, words):
        """A URL that is given in place of something else is not quoted with them."""
        secret = f"etcd://{USER}:secret%2Fword@{NOWHERE}/app"
        code, output, errors = outcome(*(word.replace("URL", secret) for word in words))
        printed = re.sub(r"[\s│]", "", output + errors)

        assert (True, False) == (code in (1, 2), "Traceback" in printed), printed
        assert [] == [word for word in (USER, "secret") if word in printed], printed

    def test_from_the_environment(self, guarded):
        """The user and the password may be in the environment instead."""
        environment = {
            **os.environ,
            "PERSISTENT_CONTEXT_ETCD_USER": USER,
            "PERSISTENT_CONTEXT_ETCD_PASSWORD": PASSWORD,
        }

        assert "1\n" == run("incr", f"etcd://{guarded.endpoint}/app/environment", "n", env=environment)

    def test_places_are_shown_without_them(self, guarded):
        """Where a command prints the place itself, it is the URL without them, in output as well as in errors."""
        place = f"etcd://{guarded.endpoint}/app/nothing"
        secret = place.replace("://", f"://{USER}:{QUOTED}@")

        assert f"no process holds the lock; {place} does not exist\n" == run("who", secret)
        run("show", secret, code=1, errors=f"error: {place} does not exist\n")

    def test_two_clusters_have_their_own(self, guarded, url):
        """Copying from one cluster to another uses the credentials of each."""
        secret = f"etcd://{USER}:{QUOTED}@{guarded.endpoint}/app/two"
        run("set", secret, "a", "1")

        assert "keys copied: 1\n" == run("copy", secret, url)
        run("set", url, "b", "2")
        assert "keys copied: 2\n" == run("copy", url, secret, "--force")
        assert '{"a": 1, "b": 2}\n' == run("show", secret, "--json")

    def test_a_watch_has_them_too(self, guarded):
        """A watch reads with them, and prints the URL without."""
        place = f"etcd://{guarded.endpoint}/app/watched"
        secret = place.replace("://", f"://{USER}:{QUOTED}@")
        with subprocess.Popen(
            [*COMMAND, "watch", secret, "--count=1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as watching:
            said = watching.stderr.readline()
            SyncPersistentContext(secret).incr("n")
            output, errors = watching.communicate()

        assert (f"{place} does not exist yet: waiting for it\n", "") == (said, errors)
        assert "n: absent -> 1" in output


class TestCompletion:
    @pytest.fixture
    def complete(self):
        """Complete the last of some words."""

        def complete(*words):
            environment = {
                **os.environ,
                "_PERSISTENT_CONTEXT_COMPLETE": "complete_bash",
                "COMP_WORDS": "\n".join(["persistent-context", *map(shlex.quote, words)]),
                "COMP_CWORD": str(len(words)),
            }
            program = Path(sys.executable).with_name("persistent-context")
            done = subprocess.run([program], capture_output=True, text=True, check=False, timeout=60, env=environment)

            assert "" == done.stderr
            return done.stdout.split()

        return complete

    def test_keys_are_those_of_the_state(self, url, complete):
        """The keys that begin with the typed text are offered."""
        ctx = SyncPersistentContext(url)
        ctx.update({"alpha": 1, "beta": 2, "all-1": 3, "a b": 4})
        ctx.save()

        assert ["alpha", "all-1"] == complete("get", url, "al")
        assert ["beta"] == complete("delete", url, "alpha", "b")

    def test_they_are_read_as_the_user(self, guarded, complete):
        """The user and the password of the URL are used."""
        secret = f"etcd://{USER}:{QUOTED}@{guarded.endpoint}/app/completed"
        SyncPersistentContext(secret).incr("number")

        assert ["number"] == complete("get", secret, "n")

    @pytest.mark.parametrize("text", [f"etcd://{NOWHERE}/ns", "etcd://x", "etcd://u:secret@"])
    def test_a_state_that_cannot_be_read_is_no_error(self, text, complete):
        """Nothing is printed while the user types."""
        assert [] == complete("get", text, "")


class TestThePage:
    def test_it_shows_what_is_printed(self, tmp_path):
        """The session on the page, typed into a shell, prints what the page shows."""
        (session,) = re.findall(r"```text\n(\$ persistent-context copy .*?)```", PAGE, re.DOTALL)
        (tmp_path / "run.json").write_text('{"cursor": 43, "jobs": ["a", "b", "c"]}', encoding="utf-8")
        url = etcd.url()
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        printed = ""
        for command in re.findall(r"^\$ (.*)$", session, re.MULTILINE):
            done = subprocess.run(
                command.replace("etcd://localhost:2379/run", url), shell=True, cwd=tmp_path, text=True, check=False,
                env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
            printed += f"$ {command}\n{done.stdout}"

        assert session == printed

    def test_it_shows_the_findings_of_the_doctor(self):
        """The page shows the subjects that the doctor examines."""
        (shown,) = re.findall(r"```text\n\$ persistent-context doctor .*?\n(.*?)```", PAGE, re.DOTALL)
        told = json.loads(run("doctor", etcd.url(), "--json"))

        assert {one["subject"] for one in told} - {"version"} == set(re.findall(r"^\w+ +(\w+): ", shown, re.MULTILINE))
