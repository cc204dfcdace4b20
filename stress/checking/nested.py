"""Checks the members of an object that all tasks fill, each of which only one task writes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from stress.checking.evidence import Evidence, Violation
from stress.checking.owned import check_owned
from stress.documents.hammered import MEMBERS, members_of


def check_nested(evidence: Evidence) -> Iterator[Violation]:
    """Each member has the last acknowledged value, or a later one whose outcome is not known: merging loses none."""
    final = {f"{MEMBERS}/{seat}": [token] for seat, token in members_of(evidence.final).items()}
    renamed = [
        replace(operation, name="delete") if operation.name == "empty" else operation
        for operation in evidence.operations
    ]
    yield from check_owned(replace(evidence, operations=renamed, final=final))
