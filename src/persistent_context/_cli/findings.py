"""Findings of an examination."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Final, NamedTuple


class Level(enum.StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


_SEVERITY: Final = list(Level)


class Finding(NamedTuple):
    """One result of the examination."""

    level: Level
    subject: str
    text: str
    advice: str = ""


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings with the worst last, where a terminal shows them."""
    return sorted(findings, key=lambda finding: _SEVERITY.index(finding.level))
