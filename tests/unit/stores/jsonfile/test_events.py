"""File system events: a watch is woken for its file only, wherever the file is now."""

import itertools
import json
import os
import threading

import pytest
import watchfiles  # so that hiding it below does not affect an import in progress

from persistent_context import MISSING, Change, SyncPersistentContext
from persistent_context._stores.jsonfile import events as _events
from persistent_context._stores.jsonfile.events import FileSubscription


@pytest.fixture
def path(tmp_path):
    """A file with some content."""
    path = tmp_path / "state.json"
    path.write_text('{"a": 1, "b": {"c": 2}}', encoding="utf-8")
    return path


class TestTheAlarm:
    def test_it_tries_again_to_watch_what_could_not_be_watched(self, tmp_path, monkeypatch):
        """Without a directory, the alarm rings periodically for a while, and then checks for the directory again."""
        monkeypatch.setattr(_events, "_TICKS", 2)
        monkeypatch.setattr(_events, "_LOOK_SECONDS", 0.001)
        tries, tried, errors = [], threading.Event(), []
        real = watchfiles.watch

        def count(directory, **options):
            tries.append(directory)
            if len(tries) > 20:
                tried.set()
            return real(directory, **options)

        monkeypatch.setattr(watchfiles, "watch", count)
        alarm = FileSubscription(str(tmp_path / "none" / "state.json"), lambda: True, errors.append)

        assert (True, []) == (tried.wait(60), errors)
        alarm.close()

    def test_it_watches_what_a_symlink_leads_to_now(self, path, tmp_path, monkeypatch):
        """When a symlink is turned, the events of the directory to which it now leads count."""
        link, second = tmp_path / "link.json", tmp_path / "sub" / "second.json"
        second.parent.mkdir()
        link.symlink_to(path)
        monkeypatch.setattr(_events, "_LOOK_ANYWAY_MILLISECONDS", 60_000)
        news = []

        def write_until_seen(file, number, seen):
            while len(news) < seen and follower.is_alive():
                file.write_text(json.dumps({"n": number}), encoding="utf-8")
                follower.join(0.05)

        def follow():
            for changes in itertools.islice(watch, 3):
                news.append(changes)  # noqa: PERF402 - seen one by one

        with SyncPersistentContext.create(link).watch("n") as watch:
            follower = threading.Thread(target=follow)
            follower.start()
            write_until_seen(path, 1, 1)
            second.write_text('{"n": 2}', encoding="utf-8")
            link.unlink()
            link.symlink_to(second)
            write_until_seen(path, 1, 2)
            write_until_seen(second, 3, 3)

        assert [{"n": Change(before, before + 1)} for before in (1, 2)] == news[1:]

    def test_one_whose_loop_is_closed_ends(self, tmp_path, monkeypatch):
        """The thread of a subscription whose event loop is closed ends."""
        monkeypatch.setattr(_events, "_LOOK_SECONDS", 0.001)
        FileSubscription(str(tmp_path / "none" / "deaf.json"), lambda: False, print)
        while any(thread.name == "watch deaf.json" for thread in threading.enumerate()):
            pass

        assert [] == [thread for thread in threading.enumerate() if thread.name == "watch deaf.json"]

    def test_it_does_not_ring_for_temporaries_and_the_lock_file(self, path, monkeypatch):
        """Of all events in the directory, only those of the file itself ring."""
        monkeypatch.setattr(_events, "_LOOK_ANYWAY_MILLISECONDS", 60_000)
        rung = threading.Event()

        def ring():
            rung.set()
            return True

        alarm = FileSubscription(str(path), ring, print)
        while not rung.wait(0.1):  # it may not be watching yet
            path.write_text("{}", encoding="utf-8")
        while rung.wait(0.3):
            rung.clear()
        for number in range(50):
            for name in (f".state.json.{number:016x}.tmp", "state.json.lock", "another.json"):
                (path.parent / name).write_text(json.dumps(number), encoding="utf-8")
        noise = rung.wait(0.3)
        path.write_text("{}", encoding="utf-8")

        assert (False, True) == (noise, rung.wait(60))
        alarm.close()

    def test_a_directory_whose_name_is_not_utf_8_is_watched(self, tmp_path):
        """If file system events are not available for a name, the file is checked periodically."""
        directory = os.fsencode(tmp_path) + b"/\xff"
        try:
            os.mkdir(directory)
        except OSError:
            pytest.skip("this file system accepts UTF-8 names only")
        path = os.path.join(os.fsdecode(directory), "state.json")
        ctx = SyncPersistentContext.create(path)
        with ctx.watch() as watch:
            for number in range(5):
                SyncPersistentContext(path).incr("n")

                assert {"n": Change(number or MISSING, number + 1)} == next(watch)
