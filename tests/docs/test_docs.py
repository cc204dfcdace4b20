"""The documentation shows what really happens, and the links of its pages work."""

import contextlib
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import unicodedata
from pathlib import Path

import pytest

import etcd
import persistent_context
from persistent_context import runtime

pytestmark = pytest.mark.timeout(240)

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = {page.name: page.read_text(encoding="utf-8") for page in sorted(DOCS.glob("*.md"))}
RUN_ELSEWHERE = {
    "cli.md": "cli/test_main.py",
    "observability.md": "unit/test_metrics.py",
    "pytest.md": "plugin/test_plugin.py",
    "tasks.md": "unit/test_runtime.py",
}
ON_ETCD = "etcd.md"
DEFAULT_ENDPOINT = "localhost:2379"
RUN_HERE = [name for name, text in PAGES.items() if "```python" in text and name not in RUN_ELSEWHERE]
FIXTURES = ("async_shared_context", "compute_once", "shared_context")

BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)]+)\)")


def prose(text):
    """Return a page without its code blocks, in which a ``#`` is not a heading and a bracket not a link."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(name):
    """Return the anchors of a page: its headings, as MkDocs names them, and the names of the reference."""
    headings = re.findall(r"^#+ (.+)$", prose(PAGES[name]), re.MULTILINE)
    plain = [unicodedata.normalize("NFKD", heading).encode("ascii", "ignore").decode() for heading in headings]
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in plain} | set(
        re.findall(r"^::: (\S+)$", PAGES[name], re.MULTILINE)
    )


class Readme:
    """The parts that a translation shares with its original."""

    def __init__(self, name):
        self.text = (ROOT / name).read_text(encoding="utf-8")

    @property
    def code(self):
        """Return the code blocks, without the comments."""
        return [
            re.sub(r" *# .*", "", block) for block in re.findall(r"^```.*?^```$", self.text, re.MULTILINE | re.DOTALL)
        ]

    @property
    def _words(self):
        return re.sub(r"<!--.*-->", "", prose(self.text)).strip()

    @property
    def parts(self):
        """Return the untranslated facts of each heading, paragraph, item and row."""
        return [self._facts(part) for part in re.split(r"\n\n+|\n(?=- |\d+\. |\|)", self._words)]

    def _facts(self, part):
        return {
            "kind": re.match(r"#+ |\d+\. |- |\||", part)[0],
            "code": sorted(re.findall(r"`[^`]+`", part)),
            "links": sorted(self._target(link) for link in LINK.findall(part)),
            "figures": sorted(re.findall(r"\d+(?:[.,]\d+)*", re.sub(r"`[^`]+`", "", part))),
            "emphasis": part.count("**"),
        }

    def _target(self, link):
        if link.startswith("#"):  # a heading has the same number in both
            headings = [re.sub(r"\W+", "-", one.lower()) for one in re.findall(r"^#+ (.+)$", self._words, re.MULTILINE)]
            return f"heading {headings.index(link[1:])}"
        return link.replace(".zh-CN", "")


class Terminal:
    """A shell in a folder, in which ``python`` is the Python of the tests."""

    def __init__(self, folder, **environment):
        self._folder = folder
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        self._environment = dict(os.environ, PATH=path, PYTHONWARNINGS="error", PYTHONUNBUFFERED="", LC_ALL="C.UTF-8")
        self._environment.update(environment)

    def session(self, shown):
        """Type the commands of a session; return the resulting session."""
        return "".join(
            f"$ {command}\n{self._run(command)}" for command in re.findall(r"^\$ (.*)$", shown, re.MULTILINE)
        )

    def _run(self, command):
        """Return what a command prints; no process that it has started outlives it, even after an error."""
        with (
            tempfile.TemporaryFile("w+", encoding="utf-8") as told,
            tempfile.TemporaryFile("w+", encoding="utf-8") as errors,
        ):
            shell = subprocess.Popen(
                ["bash", "-c", command],
                cwd=self._folder,
                env=self._environment,
                stdout=told,
                stderr=errors,
                start_new_session=True,
            )
            try:
                status = shell.wait(timeout=100)
            finally:
                with contextlib.suppress(ProcessLookupError):  # no process was left
                    os.killpg(shell.pid, signal.SIGKILL)
            told.seek(0)
            errors.seek(0)
            output = told.read()

            assert status == 0, f"$ {command}\n{output}{errors.read()}"
        return output


class TestPages:
    @pytest.mark.skipif(not shutil.which("flock"), reason="the pages show a shell of Linux, with flock")
    @pytest.mark.parametrize("name", [name for name in RUN_HERE if name != ON_ETCD])
    def test_what_is_shown_happens(self, name, tmp_path):
        """The programs of a page, typed into an empty folder in their order, print what the page shows."""
        self._type_in(PAGES[name], tmp_path, Terminal(tmp_path))

    def test_what_is_shown_happens_in_etcd(self, tmp_path):
        """So do those of the page about etcd, with a new member whose port is free in place of the default one."""
        etcd.require_etcd()
        if shutil.which("etcdctl") is None:
            pytest.skip("needs etcdctl: install Debian's package etcd-client")
        page = PAGES[ON_ETCD]

        assert DEFAULT_ENDPOINT in page

        member = etcd.Member("page", etcd.free_ports(2), etcd.temporary_directory()).start()
        try:
            member.until_healthy()
            terminal = Terminal(tmp_path, ETCDCTL_API="3", ETCDCTL_ENDPOINTS=member.endpoint)
            self._type_in(page.replace(DEFAULT_ENDPOINT, member.endpoint), tmp_path, terminal)
        finally:
            member.kill()

    def _type_in(self, page, folder, terminal):
        for language, title, body in BLOCK.findall(page):
            if language == "python":
                (folder / title).write_text(body, encoding="utf-8")
            elif language == "console":
                assert body == terminal.session(body)

    def test_only_the_string_changes(self):
        """The page about etcd shows the worker of the tutorial, with a URL in place of the path."""
        workers = [
            next(body for _, title, body in BLOCK.findall(PAGES[name]) if title == "worker.py")
            for name in ("tutorial.md", ON_ETCD)
        ]

        assert workers[0].replace("state/pages.json", f"etcd://{DEFAULT_ENDPOINT}/pages") == workers[1]

    @pytest.mark.parametrize("name", RUN_HERE)
    def test_every_program_is_run(self, name):
        """Every Python block has the name of a file, which a later command or program runs."""
        blocks = BLOCK.findall(PAGES[name])
        programs = [(number, title) for number, (language, title, _) in enumerate(blocks) if language == "python"]
        unused = [
            (number, title)
            for number, title in programs
            if not title or not any(title in body for _, _, body in blocks[number + 1 :])
        ]

        assert [] == unused

    @pytest.mark.parametrize("name", RUN_ELSEWHERE)
    def test_what_is_not_run_here_is_run_elsewhere(self, name):
        """The pages that are left out here are run by the tests that are named for them."""
        assert f'"{name}"' in (ROOT / "tests" / RUN_ELSEWHERE[name]).read_text(encoding="utf-8")

    def test_links_lead_somewhere(self):
        """A link inside the documentation leads to an existing file and heading."""
        broken = []
        for name, text in PAGES.items():
            for link in LINK.findall(prose(text)):
                target, _, anchor = link.partition("#")
                target = target or name
                if not link.startswith("https://") and (
                    not (DOCS / target).is_file() or (anchor and anchor not in anchors(target))
                ):
                    broken.append(f"{name}: {link}")

        assert [] == broken

    def test_the_site_lists_every_page(self):
        """Every page is in the navigation."""
        nav = re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)

        assert sorted(PAGES) == sorted(nav)


class TestReference:
    def test_it_has_every_public_name(self):
        """Everything that users import, and that pytest gives them, is in the reference."""
        names = [
            *(f"persistent_context.{name}" for name in persistent_context.__all__),
            *(f"persistent_context.runtime.{one.__name__}" for one in (runtime.Context, runtime.ContextManager)),
            *(f"persistent_context.metrics.{name}" for name in ("Cycle", "listen", "record_to_opentelemetry")),
            *(f"pytest_persistent_context.{name}" for name in FIXTURES),
        ]

        assert set() == set(names) - anchors("reference.md")

    def test_it_names_every_method(self):
        """Every public method of a context is in the lists of the reference."""
        bases = persistent_context.PersistentContext.__mro__
        contexts = [base for base in bases if base.__module__.startswith("persistent_context.")]
        methods = {name for face in contexts for name in vars(face) if not name.startswith("_")}
        shown = PAGES["reference.md"].partition("members:\n")[2].partition("\n\n")[0].split()

        assert methods == set(shown) - {"-"}


class TestTranslation:
    def test_it_has_the_same_code(self):
        """Both READMEs show the same programs and commands; comments are translated."""
        assert Readme("README.md").code == Readme("README.zh-CN.md").code

    def test_it_has_the_same_parts(self):
        """Both have the same headings, paragraphs, items and rows, with the same names, links and figures in each."""
        original, translation = Readme("README.md").parts, Readme("README.zh-CN.md").parts

        assert original == translation

    def test_it_knows_the_original(self):
        """After a change of the English text, the Chinese one must be checked, and then this digest updated."""
        digest = hashlib.sha256((ROOT / "README.md").read_bytes()).hexdigest()[:16]

        assert Readme("README.zh-CN.md").text.endswith(f"<!-- translates README.md {digest} -->\n")
