"""The workloads of the workers: what actors do to the file. To each belongs the checker of the same name."""

from __future__ import annotations

from stress.workloads import bank, counter, lease, lists, nested, once, owned, prefix, register
from stress.workloads.registry import WORKLOADS

__all__ = ["WORKLOADS", "bank", "counter", "lease", "lists", "nested", "once", "owned", "prefix", "register"]
