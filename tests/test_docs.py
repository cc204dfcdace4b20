"""What the documentation shows is true, and its pages hang together."""

import os
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

import persistent_context
from persistent_context import runtime

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = {page.name: page.read_text(encoding="utf-8") for page in sorted(DOCS.glob("*.md"))}
RUN_ELSEWHERE = {"pytest.md": "test_plugin.py", "tasks.md": "test_runtime.py"}
RUN_HERE = [name for name, text in PAGES.items() if "```python" in text and name not in RUN_ELSEWHERE]

BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)]+)\)")


def prose(text):
    """A page without its blocks of code, in which a ``#`` is no heading and a bracket no link."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(name):
    """The anchors of a page: its headings, as MkDocs names them, and the names of the reference."""
    headings = re.findall(r"^#+ (.+)$", prose(PAGES[name]), re.MULTILINE)
    plain = [unicodedata.normalize("NFKD", heading).encode("ascii", "ignore").decode() for heading in headings]
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in plain} | set(
        re.findall(r"^::: (\S+)$", PAGES[name], re.MULTILINE)
    )


class Terminal:
    """A shell in a folder, in which ``python`` is the Python of the tests."""

    def __init__(self, folder):
        self._folder = folder
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        self._environment = dict(os.environ, PATH=path, PYTHONWARNINGS="error", LC_ALL="C.UTF-8")

    def session(self, shown):
        """Type the commands of a session; what it looks like then."""
        lines = []
        for command in re.findall(r"^\$ (.*)$", shown, re.MULTILINE):
            told = subprocess.run(
                ["bash", "-c", command], cwd=self._folder, env=self._environment, capture_output=True, text=True
            )
            assert told.returncode == 0, f"$ {command}\n{told.stdout}{told.stderr}"
            lines.append(f"$ {command}\n{told.stdout}")
        return "".join(lines)


class TestPages:
    @pytest.mark.parametrize("name", RUN_HERE)
    def test_what_is_shown_happens(self, name, tmp_path):
        """The programs of a page, typed into an empty folder in their order, print what the page shows."""
        terminal = Terminal(tmp_path)
        for language, title, body in BLOCK.findall(PAGES[name]):
            if language == "python":
                (tmp_path / title).write_text(body, encoding="utf-8")
            elif language == "console":
                assert body == terminal.session(body)

    @pytest.mark.parametrize("name", RUN_HERE)
    def test_every_program_is_run(self, name):
        """A block of Python has the name of a file, and a later command uses it."""
        blocks = BLOCK.findall(PAGES[name])
        unused = [
            title or body
            for number, (language, title, body) in enumerate(blocks)
            if language == "python"
            and not any(title and title in later for kind, _, later in blocks[number:] if kind == "console")
        ]

        assert [] == unused

    @pytest.mark.parametrize("name", RUN_ELSEWHERE)
    def test_what_is_not_run_here_is_run_elsewhere(self, name):
        """The pages that are left out here are run by the tests that are named for them."""
        assert f'"{name}"' in (Path(__file__).parent / RUN_ELSEWHERE[name]).read_text(encoding="utf-8")

    @pytest.mark.parametrize("name", PAGES)
    def test_links_lead_somewhere(self, name):
        """A link inside the documentation leads to a file and a heading that are there."""
        broken = []
        for link in LINK.findall(prose(PAGES[name])):
            target, _, anchor = link.partition("#")
            if link.startswith("https://"):
                continue
            target = target or name
            if not (DOCS / target).is_file() or (anchor and anchor not in anchors(target)):
                broken.append(link)

        assert [] == broken

    def test_the_site_lists_every_page(self):
        """A page that is not in the navigation would not be found."""
        nav = re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)

        assert sorted(PAGES) == sorted(nav)


class TestReference:
    @pytest.mark.parametrize(
        "name",
        [
            *(f"persistent_context.{name}" for name in persistent_context.__all__),
            *(f"persistent_context.runtime.{one.__name__}" for one in (runtime.Context, runtime.ContextManager)),
            *(f"pytest_persistent_context.{name}" for name in ("async_shared_context", "compute_once", "shared_context")),
        ],
    )
    def test_it_has_every_public_name(self, name):
        """What users import, and what pytest hands them, stands in the reference."""
        assert name in anchors("reference.md")

    def test_it_names_every_method(self):
        """A public method of a context is in the list of those that the reference shows."""
        contexts = persistent_context.PersistentContext.__mro__[:2]
        methods = {name for face in contexts for name in vars(face) if not name.startswith("_")}
        shown = PAGES["reference.md"].partition("members:\n")[2].partition("\n\n")[0].split()

        assert methods == set(shown) - {"-"}
