"""The work for all keys of a mapping doubles with their number: counted, not timed."""

import asyncio
import contextlib
import sys

import pytest

from persistent_context import PersistentContext, SyncPersistentContext
from persistent_context._stores.jsonfile import document as _document
from persistent_context._stores.jsonfile import parse as _parse


def async_context(path):
    return asyncio.run(PersistentContext.create(path, durable=False))


def sync_context(path):
    return SyncPersistentContext.create(path, durable=False)


def each(method, *arguments):
    """Call a method for each key."""

    def use(mapping, keys):
        for key in keys:
            getattr(mapping, method)(key, *arguments)

    return use


def take_all(mapping, keys):
    for _ in keys:
        mapping.popitem()


USES = {
    "iter": lambda mapping, keys: list(mapping),
    "reversed": lambda mapping, keys: list(reversed(list(mapping.items()))),
    "len": lambda mapping, keys: len(mapping),
    "keys": lambda mapping, keys: list(mapping.keys()),
    "values": lambda mapping, keys: list(mapping.values()),
    "items": lambda mapping, keys: list(mapping.items()),
    "dict": lambda mapping, keys: dict(mapping),
    "equal": lambda mapping, keys: mapping == dict.fromkeys(keys, [1]),
    "in": each("__contains__"),
    "not in": lambda mapping, keys: each("__contains__")(mapping, [f"{key}x" for key in keys]),
    "getitem": each("__getitem__"),
    "get": each("get"),
    "get of none": lambda mapping, keys: each("get")(mapping, [f"{key}x" for key in keys]),
    "setitem": each("__setitem__", 1),
    "setdefault": each("setdefault", 1),
    "new keys": lambda mapping, keys: each("__setitem__", 1)(mapping, [f"{key}x" for key in keys]),
    "delitem": each("__delitem__"),
    "pop": each("pop"),
    "pop with a default": each("pop", None),
    "popitem": take_all,
    "update": lambda mapping, keys: mapping.update(dict.fromkeys(keys, 2)),
    "clear": lambda mapping, keys: mapping.clear(),
}
FORMS = {
    "async context": lambda path: contextlib.nullcontext(async_context(path)),
    "sync context": lambda path: contextlib.nullcontext(sync_context(path)),
    "live dictionary": lambda path: contextlib.nullcontext(sync_context(path)._data),
    "transaction": lambda path: sync_context(path).transaction(),
}


@pytest.fixture
def small_pages(monkeypatch):
    """Small pages, so that a document of a few kilobytes has many."""
    for module in (_document, _parse):
        monkeypatch.setattr(module, "PAGE_BYTES", 256)


def work_of(function):
    """Call a function, and count the bytecode instructions that Python executes for it."""
    count = 0

    def trace(frame, event, _argument):
        nonlocal count
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys._getframe().f_trace_opcodes = True  # Python 3.12 checks this when tracing begins
    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("form", FORMS)
def test_every_method_is_linear(form, small_pages, tmp_path):
    """Twice as many keys are about twice as much work, whatever is done with all of them."""
    too_much = {}
    for name, use in USES.items():
        work = []
        for size in (150, 300):
            keys = [f"key{number:04}" for number in range(size)]
            path = tmp_path / f"{name}-{size}.json"
            lines = ",\n".join(f'"{key}": [1]' for key in keys)
            path.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
            with FORMS[form](path) as mapping:
                work.append(work_of(lambda: use(mapping, keys)))  # noqa: B023
        if work[1] > 2.5 * work[0]:
            too_much[name] = work

    assert too_much == {}
