"""Copying a state from one store to another."""

import json
import threading

import pytest

import etcd
from commandline import run
from etcdproxy import DROP, PASS, Proxy, is_commit
from persistent_context import SyncPersistentContext

pytestmark = pytest.mark.timeout(300)

STATE = {"z": 1, "a": {"b": [None, 2.5, "ä"]}, "m/x": "", "k": [], "b": 10**30}
"""In an order that is not that of the keys."""


@pytest.fixture(params=["file", "journal", "etcd"])
def source(request, path):
    """A place that holds the state."""
    if request.param == "etcd":
        place = etcd.url()
        ctx = SyncPersistentContext(place)
    else:
        place = str(path)
        ctx = SyncPersistentContext(place, journal=request.param == "journal")
    for key, value in STATE.items():
        ctx[key] = value
        ctx.save()
    return place


@pytest.fixture(params=["file", "journal", "etcd"])
def target(request, tmp_path):
    """A place where nothing is."""
    if request.param == "etcd":
        return etcd.url()
    place = str(tmp_path / "new" / "copy.json")
    if request.param == "journal":
        SyncPersistentContext(place, journal=True).save()
    return place


@pytest.fixture
def stored(path):
    """A file that holds the state, in another layout than that of this library."""
    path.write_text(json.dumps(STATE, indent=4, ensure_ascii=True), encoding="utf-8")
    return path


def held(place):
    """Return what a place holds, in order."""
    return list(SyncPersistentContext.create(place).items())


class TestCopy:
    def test_all_keys_arrive_in_order(self, source, target):
        """Between stores of any kind, the copy has the same keys in the same order, and the original stays."""
        assert "keys copied: 5\n" == run("copy", source, target)
        assert (list(STATE.items()), list(STATE.items())) == (held(source), held(target))

    def test_what_is_there_is_not_overwritten(self, source, target):
        """A place that has keys is left as it is, with an error that counts them and names the option."""
        ctx = SyncPersistentContext(target)
        ctx.update({"k": "mine", "n": 1})
        ctx.save()
        run("copy", source, target, code=1, errors=f"error: {target} already has keys [(]2[)]; --force replaces them\n")

        assert [("k", "mine"), ("n", 1)] == held(target)

    def test_force_replaces_all(self, source, target):
        """With --force, the place has the keys of the original, in its order, and no other ones."""
        ctx = SyncPersistentContext(target)
        ctx.update({"b": "mine", "n": 1, "z": 1})
        ctx.save()

        assert "keys copied: 5\n" == run("copy", source, target, "--force")
        assert list(STATE.items()) == held(target)

    def test_force_replaces_at_once(self, stored, target):
        """Other programs see all of the old keys or all of the new ones."""
        ctx = SyncPersistentContext(target)
        ctx.update({"old": 1, "a": 0})
        ctx.save()
        seen, over = [], threading.Event()

        def look():
            reader = SyncPersistentContext(target)
            while not over.is_set():
                reader.load()
                seen.append(tuple(reader))

        looking = threading.Thread(target=look)
        looking.start()
        run("copy", stored, target, "--force")
        over.set()
        looking.join()

        assert {("old", "a"), tuple(STATE)} >= set(seen)

    def test_an_empty_state_is_one_as_well(self, path, target):
        """The copy of a state without keys exists."""
        path.write_text("{}", encoding="utf-8")

        assert "keys copied: 0\n" == run("copy", path, target)
        assert "" == run("show", target)

    def test_what_does_not_exist_is_not_copied(self, path, target):
        """A mistyped name is an error, and nothing is made of it."""
        missing = path.with_name("missing.json")
        run("copy", missing, target, code=1, errors=f"error: {missing} does not exist\n")

        assert [] == held(target)

    @pytest.mark.parametrize("which", ["from", "to"])
    def test_what_is_not_valid_is_left(self, stored, path, which):
        """A file that is not a JSON object is neither copied nor overwritten."""
        other = path.with_name("other.json")
        other.write_text("[1]", encoding="utf-8")
        pair = (other, stored) if which == "from" else (stored, other)
        run("copy", *pair, "--force", code=1, errors=f"error: {other} is not a JSON object: [^\n]*\n")

        assert ("[1]", list(STATE.items())) == (other.read_text(encoding="utf-8"), held(stored))

    def test_a_place_is_not_copied_to_itself(self, stored, tmp_path):
        """The same file under another name, or the same state by another endpoint, is wrong usage."""
        link = tmp_path / "link.json"
        link.symlink_to(stored)
        run("copy", stored, link, "--force", code=2, errors=".*TO must not be the same as FROM.*")
        endpoint, _, namespace = etcd.url().partition("://")[2].partition("/")
        pair = f"etcd://{endpoint}/{namespace}", f"etcd://10.0.0.1,{endpoint}/{namespace}"
        run("copy", *pair, "--force", code=2, errors=".*TO must not be the same as FROM.*")

    def test_the_lock_is_waited_for(self, stored, target, hold_transaction):
        """A place that another process has locked is not changed; the error names the process."""
        SyncPersistentContext(target).save()
        with hold_transaction(target) as held:
            run(
                "copy",
                stored,
                target,
                "--timeout=0.2",
                code=3,
                errors=rf"error: [^\n]*held by process {held.pid} [^\n]*\n",
            )


class TestLargeStates:
    def test_long_keys_count_too(self, path):
        """Keys that need much room are copied in several commits, too, in order."""
        path.write_text(json.dumps({f"{80 - number:02}" + "k" * 17_500: 1 for number in range(80)}), encoding="utf-8")
        url = etcd.url()

        assert "keys copied: 80, in 6 commits\n" == run("copy", path, url)
        assert held(path) == held(url)

    @pytest.fixture
    def large(self, path):
        """A file with more than one transaction of etcd can hold."""
        state = {f"k{7 * number % 50}": str(number) * 40_000 for number in range(50)}
        path.write_text(json.dumps(state, indent=2), encoding="utf-8")
        return path

    def test_it_takes_several_commits(self, large, tmp_path):
        """A state that is too large for one commit is copied in several, in order; and back in one."""
        url, back = etcd.url(), tmp_path / "back.json"

        assert "keys copied: 50, in 5 commits\n" == run("copy", large, url)
        assert held(large) == held(url)
        assert "keys copied: 50\n" == run("copy", url, back)
        assert held(large) == held(back)

    def test_many_small_keys(self, path):
        """What a key needs besides its value counts."""
        state = {f"{'n' * 40}-{number}": number for number in reversed(range(20_000))}
        path.write_text(json.dumps(state), encoding="utf-8")
        url = etcd.url()

        assert "keys copied: 20000, in " in run("copy", path, url)
        assert list(state.items()) == held(url)

    def test_it_does_not_replace_keys(self, large):
        """As it could not be done at once, it is not done: the keys stay, and the error says why."""
        url = etcd.url()
        SyncPersistentContext(url).incr("n")
        run(
            "copy", large, url, "--force", code=1, errors=f"error: {url} has keys, and they cannot be replaced [^\n]*\n"
        )

        assert [("n", 1)] == held(url)

    def test_a_value_that_is_too_large(self, path):
        """It is found before anything is written, and named."""
        path.write_text(json.dumps({"a": 1, "big": "x" * 1_600_000, "c": 2}), encoding="utf-8")
        url = etcd.url()
        run(
            "copy",
            path,
            url,
            code=1,
            errors=f"error: {url}: the value of 'big' is too large, nothing was copied[^\n]*\n",
        )

        assert [] == held(url)

    @pytest.mark.parametrize("end", ["change", "loss"])
    def test_a_copy_that_ends_halfway_says_so(self, large, end):
        """If another program writes in between, or the cluster is lost, the number of keys that are there is told."""
        url = etcd.url()
        with Proxy(etcd.member().endpoint) as proxy:
            commits = []

            def decide(path, body):
                if is_commit(body):
                    commits.append(body)
                    if len(commits) == 2 and end == "change":
                        SyncPersistentContext(url).incr("another")
                    return PASS
                return PASS if end == "change" or len(commits) < 2 else DROP

            proxy.decide = decide
            place = url.replace(etcd.member().endpoint, proxy.endpoint)
            code, why = {
                "change": (1, "error: [^\n]*another program has changed its keys"),
                "loss": (3, "error: [^\n]*no endpoint of the etcd cluster"),
            }[end]
            told = rf"(?=.*{why}).*{place} has only some of the keys, at least \d+ of 50: delete them .*"
            run("copy", large, place, f"--timeout={30 if end == 'change' else 2}", code=code, errors=told)

        keys = dict(held(url))
        assert 0 < len(keys.keys() - {"another"}) < 50
        assert ("another" in keys) == (end == "change")
