"""The workloads of the workers: the operations of the actors. Each has a checker of the same name."""

from __future__ import annotations

from stress.workloads import bank, counter, lease, lists, nested, once, owned, prefix, register
from stress.workloads.registry import WORKLOADS

__all__ = ["WORKLOADS", "bank", "counter", "lease", "lists", "nested", "once", "owned", "prefix", "register"]
