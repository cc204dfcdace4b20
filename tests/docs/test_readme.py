"""The statements of the README are true."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import persistent_context

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


class TestReadme:
    def test_the_examples_run_and_write_the_file_that_is_shown(self, tmp_path):
        """The examples, run in order, print what their comments say, and leave the file that the README shows."""
        (shown,) = blocks("json")
        printed = [
            subprocess.run(
                [sys.executable, "-W", "error", "-c", example], cwd=tmp_path, check=True, capture_output=True, text=True
            ).stdout
            for example in blocks("python")
        ]

        assert ["1\n", "2\n", ""] == printed
        assert shown == (tmp_path / "state" / "run.json").read_text(encoding="utf-8")

    @pytest.mark.parametrize("face", [persistent_context.PersistentContext, persistent_context.SyncPersistentContext])
    def test_every_name_that_is_shown_exists(self, face):
        """All names in the table of the interface exist on both faces."""
        names = set(re.findall(r"`(?:await |async with )?([a-z_]+)\(", README.split("## The interface")[1]))

        assert set() == {name for name in names if not hasattr(face, name)}

    def test_every_public_name_is_in_the_changelog(self):
        """Every name that users import is described in the changelog."""
        changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
        described = {"MISSING", "Holder", "Statistics", "Transaction"}

        assert set() == {name for name in persistent_context.__all__ if name not in changelog} - described

    def test_the_supported_pythons_are_said_once(self):
        """The classifiers, which nox reads, and requires-python agree."""
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        pythons = [line.rpartition(" ")[2] for line in project["classifiers"] if "Python :: 3." in line]

        assert f">={pythons[0]}" == project["requires-python"]

    def test_links_lead_somewhere(self):
        """Files that the README links to exist."""
        links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", README)]

        assert [] == [link for link in links if link and not link.startswith("http") and not (ROOT / link).exists()]
