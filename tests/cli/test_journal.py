"""The commands that show and fold a journal, the doctor's findings about it, and other commands with a journal."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import zlib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from filelock import FileLock

from commandline import COMMAND, run
from persistent_context import MISSING, SyncPersistentContext
from persistent_context._cli import doctor_journal
from persistent_context._stores.journal.record import NO_FILE, Author, Fingerprint, fold_line, header_line, record_line

pytest.importorskip("fcntl")  # not on Windows

NOBODY = 65534
GENERATION = "0123456789abcdef"
AUTHOR = Author(1_700_000_000.25, 4242)


def findings(path, code=0):
    """Return the doctor's problems and warnings about the file and its journal: level, text and advice."""
    found = json.loads(run("doctor", path, "--json", code=code))
    subjects = {"file", "journal", "journal permissions", "replaced", "damaged journal", "attributes"}
    return {
        f["subject"]: (f["level"], f["text"], f["advice"])
        for f in found
        if f["level"] != "ok" and f["subject"] in subjects
    }


def events(path):
    """Return what `journal --json` prints, as objects."""
    return [json.loads(line) for line in run("journal", path, "--json").splitlines()]


def journal_of(path):
    return Path(f"{path}.journal")


def written(path, *lines):
    """Write a file, and a journal of it with these lines after the header."""
    path.write_text('{"n": 1}', encoding="utf-8")
    header = header_line(GENERATION, Fingerprint.of([path.read_bytes()]), AUTHOR)
    journal_of(path).write_bytes(b"".join([header, *lines]))
    return journal_of(path)


def record(number, deleted=(), **texts):
    new = {key: value.encode() for key, value in texts.items()}
    return record_line(GENERATION, number, AUTHOR, new | dict.fromkeys(deleted, MISSING))


@pytest.fixture
def kept(path):
    """A file with a journal in which n is 2, while n is 1 in the file itself."""
    written(path, record(1, n="2"))
    return path


@pytest.fixture
def following():
    """Start `journal --follow --json` on a file; it is interrupted at the end of the test, if it still runs."""
    running = []

    def start(path, *options):
        running.append(
            subprocess.Popen(
                [*COMMAND, "journal", path, "--follow", *options],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored in the background
            )
        )
        return running[-1]

    yield start
    for process in running:
        process.send_signal(signal.SIGINT)
        process.communicate()


class TestOtherCommands:
    def test_they_read_the_state_and_not_only_the_file(self, kept):
        """Acknowledged changes are shown, whether or not they have been folded into the file."""
        before = kept.read_bytes()

        assert (b'{"n": 1}', "n\t2\n", "2\n") == (before, run("show", kept), run("get", kept, "n"))
        assert "3\n" == run("incr", kept, "n")

    def test_they_read_a_journal_whose_file_is_missing(self, kept):
        """What is left is shown, not refused."""
        kept.unlink()

        assert "n\t2\n" == run("show", kept)

    def test_a_journal_of_a_newer_version_is_an_error(self, path):
        """The error is one line, which says what to do."""
        header = header_line(GENERATION, NO_FILE, AUTHOR).replace(b'journal": 1', b'journal": 9')
        payload = header[9:-1]
        journal_of(path).write_bytes(b"%08x %s\n" % (zlib.crc32(payload), payload))
        path.write_text("{}", encoding="utf-8")
        told = "error: [^\n]*format version 9[^\n]*upgrade the package\n"
        for command in (["show"], ["journal"], ["set", "a", "1"], ["checkpoint"]):
            name, *rest = command
            run(name, path, *rest, code=1, errors=told)

        assert "upgrade" in findings(path, code=1)["journal"][2]


class TestCheckpoint:
    def test_it_folds_and_says_so(self, kept):
        """Programs that know only the JSON file see everything afterwards."""
        size = journal_of(kept).stat().st_size

        told = run("checkpoint", kept)

        assert f"folded a journal of {size} bytes into {kept}, which now has {kept.stat().st_size} bytes\n" == told
        assert {"n": 2} == json.loads(kept.read_text(encoding="utf-8"))

    def test_there_may_be_nothing_to_fold(self, kept):
        """Without anything to fold the file is unchanged, and there is no error."""
        run("checkpoint", kept)
        before = kept.stat().st_ino

        assert f"{kept} already has everything in its journal: nothing to fold\n" == run("checkpoint", kept)
        assert before == kept.stat().st_ino

    def test_there_may_be_no_journal(self, path):
        """A file without a journal has everything; a missing file is an error, and stays missing."""
        run("checkpoint", path, code=1, errors=f"error: {path} does not exist\n")
        assert [] == os.listdir(path.parent)
        path.write_text("{}", encoding="utf-8")

        assert f"{path} has no journal: nothing to fold\n" == run("checkpoint", path)
        assert not journal_of(path).exists()

    def test_it_waits_for_the_lock_as_others_do(self, kept, hold_transaction):
        """It waits for its timeout, and then ends with the exit code for locks."""
        with hold_transaction(kept):
            run("checkpoint", kept, "--timeout", "0.1", code=3, errors="error: [^\n]*could not get the lock[^\n]*\n")


class TestJournal:
    def test_it_tells_who_changed_what_and_when(self, path):
        """Each line has the time in UTC, the process, and what was set, deleted or folded."""
        both = record_line(GENERATION, 2, AUTHOR, {"moved": b"1", "name": b'"x"'}, ["moved"])
        gone = record(3, deleted=["n", "name"])
        fold = fold_line(GENERATION, 4, AUTHOR, Fingerprint(17, 1), ends=False)
        end = fold_line(GENERATION, 5, AUTHOR, NO_FILE, ends=True)
        written(path, record(1, n="[1, 2]"), both, gone, fold, end)
        start = "2023-11-14 22:13:20.250000Z     4242  "

        assert [
            "the journal begins, on 8 bytes",
            "n = [1, 2]",
            'moved = 1; name = "x"',
            "n deleted; name deleted",
            "checkpoint: the file becomes 17 bytes",
            "checkpoint: the file becomes no file, without a journal",
        ] == [line.removeprefix(start) for line in run("journal", path).splitlines()]

    def test_scripts_get_objects(self, path):
        """Scripts get the same events, with the full values."""
        value = "x" * 200
        fold = fold_line(GENERATION, 2, AUTHOR, Fingerprint(17, 1), ends=False)
        end = fold_line(GENERATION, 3, AUTHOR, Fingerprint(17, 1), ends=True)
        written(path, record(1, deleted=["m"], n=json.dumps(value)), fold, end)
        signed = {"time": "2023-11-14T22:13:20.250000Z", "pid": 4242}
        follows = {"size": 8, "crc32": zlib.crc32(path.read_bytes())}
        becomes = {"size": 17, "crc32": 1}

        assert [
            {"event": "begin", **signed, "generation": GENERATION, "follows": follows},
            {"event": "commit", **signed, "number": 1, "set": {"n": value}, "deleted": ["m"]},
            {"event": "checkpoint", **signed, "number": 2, "becomes": becomes},
            {"event": "end", **signed, "number": 3, "becomes": becomes},
        ] == events(path)

    def test_it_tells_what_a_program_did(self, path):
        """The process and the time are those of the program."""
        began = datetime.now(UTC)
        ctx = SyncPersistentContext(path, journal=True)
        ctx.incr("n")
        ctx.incr("n")
        with FileLock(f"{path}.lock"):  # so that no process folds it
            first, second = events(path)
        moment = datetime.fromisoformat(second["time"])

        assert ("begin", {"n": 2}, os.getpid()) == (first["event"], second["set"], second["pid"])
        assert began <= moment <= datetime.now(UTC)

    def test_long_values_and_many_keys_are_shortened(self, path):
        """A line stays readable, and says how much is left out."""
        written(path, record(1, n='"' + "x" * 1000 + '"'), record(2, **{f"key{n}": "1" for n in range(1000)}))
        _, long, many = run("journal", path).splitlines()

        assert ("…", True) == (long[-1], len(long) < 120)
        assert many.endswith("key9 = 1; 990 more")

    def test_a_file_without_a_journal_says_so(self, path):
        """One line says so, with exit code 1, whether the file exists or not, and no journal is made."""
        path.write_text("{}", encoding="utf-8")
        for options in ([], ["--follow"], ["--json"]):
            run("journal", path, *options, code=1, errors=f"error: {path} has no journal\n")

        assert ["state.json"] == os.listdir(path.parent)

    def test_a_link_leads_to_the_journal(self, kept, tmp_path):
        """The journal of the file that the link leads to is shown."""
        link = tmp_path / "elsewhere" / "link.json"
        link.parent.mkdir()
        link.symlink_to(kept)

        assert run("journal", kept) == run("journal", link)

    @pytest.mark.parametrize("text", ["\x1b[2J", "\x9b2J", "\x7f", "\u202etxt.exe", "a\u2028b"], ids=ascii)
    def test_no_terminal_obeys_a_journal(self, path, text):
        """Control characters in keys and values are escaped; scripts get the exact value."""
        quoted = json.dumps(text, ensure_ascii=False).encode()
        lines = [record_line(GENERATION, n, AUTHOR, {text: new}) for n, new in enumerate((quoted, MISSING), 1)]
        written(path, *lines)
        printed = [*run("journal", path).splitlines(), *run("journal", path, "--json").splitlines()]

        assert [] == [line for line in printed if not line.isprintable()]
        assert [{text: text}, {}] == [event["set"] for event in events(path)[1:]]
        assert [text] == events(path)[2]["deleted"]

    def test_the_deepest_value_and_the_longest_number(self, path):
        """They are shortened like others, and exact for scripts."""
        deep, long = "[" * 400 + "]" * 400, "9" * 4000
        written(path, record(1, deep=deep, long=long))

        assert run("journal", path).endswith(f"deep = {'[' * 60}…; long = {'9' * 60}…\n")
        assert f'"deep": {deep}, "long": {long}' in run("journal", path, "--json")

    def test_a_number_that_this_process_cannot_read(self, path):
        """The error is one line, as for the file itself, and the journal does not count as damaged."""
        written(path, record(1, long="9" * 4000))
        environment = {**os.environ, "PYTHONINTMAXSTRDIGITS": "700"}
        run("journal", path, code=1, errors="error: [^\n]*4,000 digits[^\n]*\n", env=environment)

    @pytest.mark.parametrize("moment", ["1e300", "-1e300"])
    def test_a_time_that_is_none(self, path, moment):
        """An impossible time, which anyone who may write the file can write, is shown as unknown."""
        line = record(1, n="2")[9:-1].replace(b"1700000000.250000", moment.encode())
        body = line.partition(b" ")[2].partition(b" ")[2]
        line = b"%d %s %s" % (len(body), GENERATION.encode(), body)
        written(path, b"%08x %s\n" % (zlib.crc32(line), line))

        assert "at an unknown time" in run("journal", path).splitlines()[1]
        assert None is events(path)[1]["time"]

    def test_a_damaged_line_is_told_in_its_place(self, path):
        """Damaged and missing lines are shown in their place, and so is what comes after them."""
        first, second, fourth = record(1, n="2"), record(2, n="3"), record(4, n="5")
        written(path, first, second.replace(b"3}", b"7}"), record(3, n="4"), record(5, n="6"), fourth)
        start = journal_of(path).read_bytes().index(second[:10].split()[0])
        shown = run("journal", path).splitlines()

        assert f"damaged: {len(second)} bytes at byte {start} are ignored" == shown[2]
        assert "damaged: lines are missing here" == shown[4]
        assert ["n = 2", "n = 4", "n = 6"] == [shown[line].rpartition("  ")[2] for line in (1, 3, 5)]
        assert [{"event": "damaged", "offset": start, "bytes": len(second)}] == [
            event for event in events(path) if event["event"] == "damaged" and event["bytes"]
        ]

    def test_a_damaged_header(self, path):
        """The lines after a damaged header are shown."""
        journal = written(path, record(1, n="2"))
        journal.write_bytes(b"x" + journal.read_bytes()[1:])
        damaged, line = run("journal", path).splitlines()

        assert ("damaged: ", "n = 2") == (damaged[:9], line.rpartition("  ")[2])

    @pytest.mark.parametrize("tail", [b"1234", b"whole, but damaged\n"], ids=["torn", "whole"])
    def test_what_was_not_finished_is_told(self, kept, tail):
        """The end of a journal may be an interrupted append, which was not acknowledged and is not damage."""
        journal = journal_of(kept)
        size = journal.stat().st_size
        journal.write_bytes(journal.read_bytes() + tail)
        told = f"unfinished: {len(tail)} bytes at the end, which were not acknowledged; the next write replaces them"

        assert told == run("journal", kept).splitlines()[-1]
        assert {"event": "unfinished", "offset": size, "bytes": len(tail)} == events(kept)[-1]
        assert {} == {name: found for name, found in findings(kept).items() if "damaged" in found[1]}

    def test_it_changes_nothing(self, kept):
        """Showing a journal neither folds nor repairs it."""
        journal = journal_of(kept)
        journal.write_bytes(journal.read_bytes() + b"torn")
        before = kept.read_bytes(), journal.read_bytes(), sorted(os.listdir(kept.parent))
        run("journal", kept)
        run("doctor", kept)

        assert before == (kept.read_bytes(), journal.read_bytes(), sorted(os.listdir(kept.parent)))

    def test_a_journal_that_is_a_link_is_refused(self, path):
        """A journal that is a link is refused, as by the library."""
        path.write_text("{}", encoding="utf-8")
        journal_of(path).symlink_to(path)
        run("journal", path, code=1, errors="error: [^\n]*symbolic link[^\n]*\n")


class TestFollow:
    def test_it_goes_on_over_checkpoints(self, path, following):
        """Appends are shown soon, then the checkpoint, and then appends to the next journal."""
        ctx = SyncPersistentContext(path, journal=True)
        ctx.incr("n")
        shown = following(path, "--json").stdout
        seen = [json.loads(shown.readline())]
        for key in ("a", "b"):
            ctx.incr(key)
            seen.append(json.loads(shown.readline()))
        ctx.checkpoint()
        seen += [json.loads(shown.readline()) for _ in range(2)]
        ctx.incr("c")
        seen.append(json.loads(shown.readline()))

        assert ["begin", "commit", "commit", "checkpoint", "begin", "commit"] == [event["event"] for event in seen]
        assert [{"a": 1}, {"b": 1}, {"c": 1}] == [event["set"] for event in seen if "set" in event]
        assert seen[3]["becomes"] == seen[4]["follows"]

    def test_it_waits_for_a_journal_that_has_ended(self, path, following):
        """The next journal is followed, too."""
        SyncPersistentContext(path, journal=True).incr("n")
        shown = following(path, "--json").stdout
        seen = [json.loads(shown.readline())["event"]]
        SyncPersistentContext(path, journal=False).incr("n")
        seen.append(json.loads(shown.readline())["event"])
        assert not journal_of(path).exists()
        SyncPersistentContext(path, journal=True).incr("n")
        seen.append(json.loads(shown.readline())["event"])

        assert ["begin", "end", "begin"] == seen

    def test_it_shows_no_line_before_it_is_whole(self, kept, following):
        """An append in progress is neither shown nor called damaged, nor is one that the next append replaces."""
        shown = following(kept).stdout
        lines = [shown.readline(), shown.readline()]
        good = journal_of(kept).read_bytes()
        line = record(2, n="3")
        journal_of(kept).write_bytes(good + b"damaged, but whole\n")
        with journal_of(kept).open("r+b") as file:
            file.truncate(len(good))
            file.seek(len(good))
            file.write(line[:20])
            file.flush()
            file.write(line[20:])
        lines.append(shown.readline())

        assert ["the journal begins, on 8 bytes", "n = 2", "n = 3"] == [one.strip().split("  ")[-1] for one in lines]

    def test_an_interrupt_ends_it_quietly(self, kept, following):
        """Ctrl-C is the intended end; everything printed before had been flushed."""
        process = following(kept)
        process.stdout.readline()
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate()

        assert (130, "", "") == (process.returncode, rest, errors)


class TestDoctor:
    @pytest.mark.usefixtures("nobody_folds")
    def test_a_journal_in_use_is_well(self, path):
        """The length of the journal is shown, and how many keys the file lacks."""
        ctx = SyncPersistentContext.create(path, journal=True)
        for _ in range(2):
            ctx.update(a=1, b=ctx.get("b", 0) + 1)
            ctx.save()

        assert {} == findings(path)
        size = journal_of(path).stat().st_size
        assert re.search(
            rf"ok +journal: {size} bytes; keys changed since the last checkpoint: 1\n", run("doctor", path)
        )

    def test_writers_that_were_killed(self, kept):
        """The file is out of date until the next write: the advice is the command for a checkpoint, which works."""
        os.utime(journal_of(kept), (1_700_000_000, 1_700_000_000))
        level, text, advice = findings(kept)["journal"]
        subprocess.run(
            advice.rpartition(": ")[2],
            shell=True,
            check=True,
            env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        )

        assert ("warning", True, {}) == (level, "writers ended" in text, findings(kept))

    def test_a_journal_without_its_file(self, kept):
        """The journal has only changes, so the advice is to put the file back first."""
        kept.unlink()
        found = findings(kept, code=1)

        assert ("problem", "problem") == (found["file"][0], found["journal"][0])
        assert "put the file back" in found["journal"][2]

    def test_a_file_that_another_program_has_replaced(self, kept):
        """The finding says which values win, and afterwards what to do with the copy that was kept."""
        kept.write_text('{"n": 7, "other": 1}', encoding="utf-8")
        level, text, _ = findings(kept)["journal"]
        SyncPersistentContext(kept).incr("n")
        found = findings(kept)
        compared = subprocess.run(found["replaced"][2].partition(": ")[2], shell=True, capture_output=True, check=False)

        assert ("warning", True, True) == (level, "was replaced" in text, "its values count" in text)
        assert ({"replaced"}, True) == (found.keys(), b'"n": 7' in compared.stdout)

    def test_a_fold_that_was_interrupted(self, path):
        """The file has everything, and nothing needs to be done."""
        after = b'{"n": 2}'
        written(path, record(1, n="2"), fold_line(GENERATION, 2, AUTHOR, Fingerprint.of([after]), ends=False))
        path.write_bytes(after)
        level, _, advice = findings(path)["journal"]

        assert ("warning", True) == (level, "nothing is lost" in advice)

    def test_a_damaged_journal(self, path):
        """Damage is a problem until a writer has kept a copy; then the copy is reported."""
        written(path, record(1, n="2").replace(b"2}", b"3}"), record(2, m="2"))
        level, text, _ = findings(path, code=1)["journal"]
        SyncPersistentContext(path).incr("m")
        found = findings(path)

        assert ("problem", True) == (level, "damaged" in text)
        assert {"damaged journal"} == found.keys()

    def test_a_journal_that_nobody_has_folded(self, path):
        """A journal that is longer than it should ever be is reported."""
        written(path, record(1, n='"' + "x" * 3_000_000 + '"'))
        level, text, advice = findings(path)["journal"]

        assert ("warning", True) == (level, "should have been folded" in text)
        assert advice.endswith(f"persistent-context checkpoint {os.path.realpath(path)}")

    def test_a_large_file_with_a_journal_is_well(self, path):
        """A large file with a journal is what journals are for."""
        path.write_text('{"a": "' + "x" * 17_000_000 + '"}', encoding="utf-8")
        assert "journal=True" in findings(path)["file"][2]
        SyncPersistentContext(path, journal=True).incr("n")

        assert "file" not in findings(path)

    def test_a_file_that_cannot_be_read(self, kept):
        """If the file cannot be read, the state in the journal cannot be known."""
        kept.write_text("[1]", encoding="utf-8")
        found = findings(kept, code=1)

        assert ("problem", True) == (found["journal"][0], "is not a JSON object" in found["file"][1])

    def test_permissions_that_are_wider_than_those_of_the_file(self, kept):
        """Wider permissions are reported with the command that corrects them, which works."""
        kept.chmod(0o600)
        journal_of(kept).chmod(0o644)
        level, text, advice = findings(kept)["journal permissions"]
        subprocess.run(advice, shell=True, check=True)

        assert ("warning", True) == (level, "644" in text)
        assert "journal permissions" not in findings(kept)

    @pytest.mark.parametrize("kind", ["link", "directory"])
    def test_a_journal_that_is_no_file(self, path, kind):
        """A journal that is not a regular file is never followed or used."""
        path.write_text("{}", encoding="utf-8")
        if kind == "link":
            journal_of(path).symlink_to(path)
        else:
            journal_of(path).mkdir()
        level, text, advice = findings(path, code=1)["journal"]

        assert ("problem", True, True) == (level, "not a regular file" in text, advice.startswith("remove it: rm "))

    @pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user")
    def test_a_journal_of_somebody_who_may_not_write_the_file(self, kept):
        """The journal may have been planted, and is refused; its owner is named."""
        for directory in kept.parents:
            directory.chmod(directory.stat().st_mode | 0o001)
        kept.parent.chmod(0o777)
        kept.chmod(0o644)
        os.chown(kept, 1, 1)
        os.chown(journal_of(kept), NOBODY, NOBODY)
        found = as_user(1, kept)

        assert ("problem", True) == (found["journal"][0], f"belongs to user {NOBODY}" in found["journal"][1])
        kept.unlink()
        _, text, advice = as_user(1, kept)["journal"]

        assert (True, True, False) == ("is missing" in text, "only copy" in advice, "rm " in advice)

    @pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user")
    @pytest.mark.parametrize(("mode", "subject"), [(0o600, "journal"), (0o644, "journal permissions")])
    def test_a_journal_that_this_user_may_not_write_or_read(self, kept, mode, subject):
        """The finding says that nothing can be saved."""
        for directory in kept.parents:
            directory.chmod(directory.stat().st_mode | 0o001)
        kept.chmod(0o644)
        journal_of(kept).chmod(mode)
        level, text, advice = as_user(NOBODY, kept)[subject]

        assert ("problem", True, True) == (level, "save" in text, advice.startswith("chmod"))

    @pytest.mark.parametrize(
        ("code", "said"), [(errno.EPERM, "who may not write the file"), (errno.EACCES, "this user cannot open")]
    )
    def test_a_journal_that_cannot_be_opened(self, kept, monkeypatch, code, said):
        """Neither reading nor saving works until that is corrected; the advice says how."""

        def refuse(name, _path):
            raise OSError(code, os.strerror(code), name)

        monkeypatch.setattr(doctor_journal, "open_journal", refuse)
        (found,) = doctor_journal.journal(str(kept))

        assert ("problem", True, True) == (found.level, said in found.text, str(journal_of(kept)) in found.advice)

    @pytest.mark.parametrize(
        ("fails", "expected"),
        [(True, ("problem", "cannot be read: Input/output error")), (False, ("ok", "has just ended"))],
    )
    def test_a_journal_that_goes_wrong_meanwhile(self, kept, monkeypatch, fails, expected):
        """Changes between two looks are reported as well."""

        def read(*_arguments):
            if fails:
                raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(doctor_journal.Journal, "read", read)
        (found,) = doctor_journal.journal(str(kept))

        assert expected == (found.level, found.text)

    def test_a_journal_on_windows(self, kept, monkeypatch):
        """The journal must have come from another system, and the finding says that it is not used properly there."""
        monkeypatch.setattr(doctor_journal, "_ON_WINDOWS", True)
        (found,) = doctor_journal.journal(str(kept))

        assert ("problem", "journal", True) == (found.level, found.subject, "Windows" in found.text)

    def test_attributes_that_forbid_to_append(self, kept):
        """The attributes of the journal are checked like those of the file."""
        journal = journal_of(kept)
        if not shutil.which("chattr") or subprocess.run(["chattr", "+i", journal], check=False).returncode:
            pytest.skip("needs root, chattr and a file system that has attributes")
        try:
            level, text, _ = findings(kept, code=1)["attributes"]
        finally:
            subprocess.run(["chattr", "-i", journal], check=True)

        assert ("problem", True) == (level, f"{os.path.realpath(journal)} is immutable" in text)


def as_user(user, path):
    """Return what the doctor finds about a file and its journal when another user asks."""
    code = (
        "import json, os, sys; from persistent_context._cli import doctor_journal\n"
        f"os.setgroups([]), os.setgid({user}), os.setuid({user})\n"
        "print(json.dumps([finding._asdict() for finding in doctor_journal.journal(os.path.realpath(sys.argv[1]))]))"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    return {f["subject"]: (f["level"], f["text"], f["advice"]) for f in json.loads(done.stdout)}
