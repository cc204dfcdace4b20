"""The state in an editor: edited values are saved, others' changes are kept, and no edited text is lost."""

import json
import os
import re
import signal
import subprocess
import sys

import pytest

from commandline import COMMAND, run

pty = pytest.importorskip("pty")  # not on Windows

BEGINNING = """
import json, os, signal, sys
from pathlib import Path
from persistent_context import SyncPersistentContext

path, state = Path(sys.argv[-1]), os.environ["STATE"]
text = path.read_text(encoding="utf-8")
"""


@pytest.fixture
def stored(path):
    """A file that holds a few values."""
    path.write_text('{"n": 1, "name": "älice", "jobs": ["a", {"b": null}]}', encoding="utf-8")
    return path


@pytest.fixture
def drafts(tmp_path):
    """The directory of the texts that are edited."""
    directory = tmp_path / "drafts"
    directory.mkdir()
    return directory


@pytest.fixture
def editor(stored, drafts, tmp_path):
    """Return the environment in which the editor is a program: ``editor(code)``."""

    def install(code):
        program = tmp_path / "my editor.py"
        program.write_text(BEGINNING + code, encoding="utf-8")
        environment = {name: value for name, value in os.environ.items() if name != "VISUAL"}
        return environment | {
            "EDITOR": f"'{sys.executable}' '{program}' --wait",
            "STATE": str(stored),
            "TMPDIR": str(drafts),
        }

    return install


def values(path):
    """Return what any other program reads in the file."""
    return json.loads(path.read_text(encoding="utf-8"))


def kept(drafts):
    """Return the texts that were kept."""
    return [file.read_text(encoding="utf-8", errors="replace") for file in drafts.rglob("*.json")]


class TestSaving:
    def test_what_was_edited_is_saved_and_what_others_changed_is_kept(self, stored, drafts, editor):
        """Keys are changed, added and deleted on both sides, and every change takes effect."""
        environment = editor(
            "data = json.loads(text); del data['name']\n"
            "path.write_text(json.dumps(data | {'n': 2, 'new': True}), encoding='utf-8')\n"
            "with SyncPersistentContext(state).transaction() as tx: del tx['jobs']; tx['other'] = [1]\n"
        )

        assert "keys changed: 3\n" == run("edit", stored, env=environment)
        assert ({"n": 2, "other": [1], "new": True}, []) == (values(stored), os.listdir(drafts))

    def test_a_key_alone(self, stored, editor):
        """The value of a single key is edited as JSON, and the other keys are not in the editor."""
        environment = editor("assert text == '\"älice\"\\n', text; path.write_text('[\"bob\"]')")

        assert "keys changed: 1\n" == run("edit", stored, "name", env=environment)
        assert {"n": 1, "name": ["bob"], "jobs": ["a", {"b": None}]} == values(stored)
        run("edit", stored, "nope", code=1, errors=f"error: {stored} has no key 'nope'\n", env=environment)

    @pytest.mark.parametrize("code", ["", "path.write_text(json.dumps(json.loads(text)), encoding='utf-8-sig')"])
    def test_what_was_not_changed_is_not_written(self, stored, drafts, editor, code):
        """Another layout, or a byte order mark, is not a change of the state."""
        before = (stored.read_bytes(), stored.stat().st_ino, stored.stat().st_mtime_ns)

        assert "nothing was changed\n" == run("edit", stored, env=editor(code))
        assert before == (stored.read_bytes(), stored.stat().st_ino, stored.stat().st_mtime_ns)
        assert [] == os.listdir(drafts)

    def test_nothing_is_saved_for_want_of_a_change(self, stored, editor):
        """Without a change nothing is written, not even a file that was removed in the meantime."""
        assert "nothing was changed\n" == run("edit", stored, env=editor("os.unlink(state)"))
        assert not stored.exists()

    def test_the_text_is_private_and_controls_nothing(self, stored, drafts, editor):
        """Only its user can read the text, and control characters in it are escaped without being changed."""
        stored.write_text(json.dumps({"a": "\x9b2J\u202e", "n": 1}), encoding="utf-8")
        environment = editor(
            "assert all(line.isprintable() for line in text.split('\\n')), ascii(text)\n"
            "print([oct(os.stat(name).st_mode & 0o777) for name in (path, path.parent)], path.name)\n"
            "path.write_text(text.replace('1', '2'))\n"
        )
        printed = run("edit", stored, env=environment, umask=0)

        assert "['0o600', '0o700'] state.json\nkeys changed: 1\n" == printed
        assert {"a": "\x9b2J\u202e", "n": 2} == values(stored)

    def test_ctrl_c_belongs_to_the_editor(self, stored, editor):
        """Ctrl-C reaches the editor, and does not end the command; it is not ignored by default."""
        environment = editor(
            "assert signal.getsignal(signal.SIGINT) is signal.default_int_handler\n"
            "signal.signal(signal.SIGINT, lambda *_: path.write_text(text.replace('1', '2'), encoding='utf-8'))\n"
            "os.killpg(0, signal.SIGINT)\n"
        )
        printed = run(
            "edit",
            stored,
            env=environment,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

        assert ("keys changed: 1\n", 2) == (printed, values(stored)["n"])


class TestConflicts:
    CONFLICT = (
        "path.write_text(text.replace('1', '2').replace('älice', 'bob'), encoding='utf-8')\n"
        "SyncPersistentContext(state).incr('n', 41)\n"
    )

    def test_one_is_an_error_and_the_text_is_kept(self, stored, drafts, editor):
        """Nothing is written, so the other program's change stays."""
        errors = rf"error: {stored}: [^\n]*: 'n'; nothing was saved[^\n]*--on-conflict[^\n]*\n[^\n]*{drafts}[^\n]*\n"
        run("edit", stored, code=1, errors=errors, env=editor(self.CONFLICT))
        (text,) = kept(drafts)

        assert (42, "älice") == (values(stored)["n"], values(stored)["name"])
        assert '"n": 2,\n  "name": "bob",' in text

    @pytest.mark.parametrize(("rule", "whose", "n"), [("mine", "your", 2), ("theirs", "its", 42)])
    def test_one_that_is_decided(self, stored, drafts, editor, rule, whose, n):  # noqa: PLR0913
        """Either side can be preferred, which applies only to the keys in conflict."""
        noted = rf"conflicts [^\n]* in which {whose} change was kept: 1\n"
        run("edit", stored, "--on-conflict", rule, env=editor(self.CONFLICT), errors=noted)

        assert (n, "bob", []) == (values(stored)["n"], values(stored)["name"], os.listdir(drafts))


class TestTextsThatCannotBeSaved:
    @pytest.mark.parametrize(
        ("text", "told"),
        [
            (b'{\n"n": 2,,\n}', "not valid JSON: [^\n]*line 2 column 8"),
            (b'{"n": NaN}', "not valid JSON: NaN is not a JSON value: line 1 column 7"),
            (b'{"n": 2, "n": 3}', "the key 'n' twice"),
            (b"[2]", "must be a JSON object, not list"),
            (b'{"n": "\xff"}', "not UTF-8: [^\n]* at byte 7"),
            (b"", "not valid JSON: [^\n]*line 1 column 1"),
        ],
    )
    def test_it_says_why_and_keeps_them(self, stored, drafts, editor, text, told):
        """Without a terminal there is no question: the file is unchanged, and the kept text is named."""
        before = stored.read_bytes()
        errors = rf"error: [^\n]*{told}[^\n]*; nothing was saved\nthe edited text is kept in (/[^\n]*)\n"
        run("edit", stored, code=1, errors=errors, env=editor(f"path.write_bytes({text!r})"))
        (draft,) = drafts.rglob("*.json")

        assert (before, text) == (stored.read_bytes(), draft.read_bytes())

    @pytest.mark.parametrize("answer", ["y", "n", "\x04"], ids=["yes", "no", "end"])
    def test_on_a_terminal_one_may_edit_again(self, stored, drafts, editor, answer):
        """The editor is opened again on the same text, or the text is kept if the user declines."""
        environment = editor("path.write_text(text.replace('1,', '2', 1) if '1,' in text else text.replace('2', '2,'))")
        ours, terminal = pty.openpty()
        os.write(ours, f"{answer}\n".encode())
        done = subprocess.run(
            [*COMMAND, "edit", stored], stdin=terminal, capture_output=True, text=True, check=False, env=environment
        )
        os.close(terminal)
        os.close(ours)

        assert re.search(r"not valid JSON: [^\n]*line \d+ column \d+[^\n]*\nEdit again\? \[Y/n\]", done.stderr)
        assert (0 if answer == "y" else 1) == done.returncode
        assert (2 if answer == "y" else 1) == values(stored)["n"]
        assert (answer == "y") == (kept(drafts) == [])

    def test_a_lock_that_cannot_be_acquired(self, stored, drafts, editor, hold_transaction):
        """The exit code is that of other commands, and the text is kept."""
        environment = editor("path.write_text(text.replace('1', '2'), encoding='utf-8')")
        with hold_transaction(stored):
            errors = f"the edited text is kept in {drafts}[^\n]*\nerror: {stored}: could not get the lock [^\n]*\n"
            run("edit", stored, "--timeout", "0", code=3, errors=errors, env=environment)

        assert 1 == len(kept(drafts))

    def test_a_value_that_is_none_of_json(self, stored, drafts, editor):
        """A value that only Python's json can read is refused by the library, and the text is kept."""
        errors = f"the edited text is kept in {drafts}[^\n]*\nerror: {stored}: [^\n]*surrogate[^\n]*\n"
        run("edit", stored, code=1, errors=errors, env=editor('path.write_text(\'{"n": "\\\\ud800"}\')'))

        assert (1, 1) == (values(stored)["n"], len(kept(drafts)))


class TestTheEditor:
    @pytest.mark.parametrize(
        ("code", "told"),
        [("sys.exit(3)", "exited with 3"), ("os.kill(os.getpid(), signal.SIGKILL)", "was killed by signal 9")],
    )
    def test_one_that_fails(self, stored, drafts, editor, code, told):
        """Nothing is saved; a text that the editor changed is kept, and an unchanged one is not."""
        errors = f"error: the editor {sys.executable} {told}; nothing was saved\n"
        run("edit", stored, code=1, errors=errors, env=editor(code))

        assert [] == os.listdir(drafts)
        code = f"path.write_text('{{}}'); {code}"
        run("edit", stored, code=1, errors=errors + "the edited text is kept in [^\n]*\n", env=editor(code))
        assert (["{}"], 1) == (kept(drafts), values(stored)["n"])

    def test_one_that_deletes_the_text(self, stored, drafts, editor):
        """A deleted text does not mean that all keys are to be deleted."""
        errors = "error: the editor deleted [^\n]*; nothing was saved\n"
        run("edit", stored, code=1, errors=errors, env=editor("path.unlink()"))

        assert ([], 1) == (os.listdir(drafts), values(stored)["n"])

    @pytest.mark.parametrize(
        ("command", "told"),
        [
            ("", "no editor is set: [^\n]*EDITOR=nano"),
            ("no-such-editor", "the editor no-such-editor cannot be started: No such file[^\n]*"),
            ("vi 'a", "the editor command cannot be parsed: vi 'a: [^\n]*"),
        ],
    )
    def test_one_that_there_is_not(self, stored, drafts, editor, command, told):
        """The message says what to set, and nothing is left behind."""
        run("edit", stored, code=1, errors=f"error: {told}\n", env=editor("") | {"EDITOR": command})

        assert [] == os.listdir(drafts)

    def test_the_visual_one_is_preferred(self, stored, editor):
        """VISUAL takes precedence over EDITOR, as in other programs."""
        environment = editor("path.write_text('{}')")
        environment = environment | {"VISUAL": environment["EDITOR"], "EDITOR": "false"}

        assert "keys changed: 3\n" == run("edit", stored, env=environment)

    def test_it_is_opened_on_sound_files_only(self, path, editor):
        """A missing file is not created under a mistyped name, and a corrupt one stays in place."""
        missing = path.with_name("missing.json")
        run("edit", missing, code=1, errors=f"error: {missing} does not exist\n", env=editor("sys.exit(9)"))
        path.write_text("[1]", encoding="utf-8")
        run("edit", path, code=1, errors=f"error: {path} is not a JSON object[^\n]*\n", env=editor("sys.exit(9)"))

        assert ["state.json"] == os.listdir(path.parent)
