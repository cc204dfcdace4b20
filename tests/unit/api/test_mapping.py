"""Contexts, live dictionaries and transactions are mappings: CPython's own tests for mappings run on them."""

import asyncio
import contextlib
import itertools
import json
import tempfile
from pathlib import Path

import pytest

from persistent_context import PersistentContext, SyncPersistentContext

try:
    from test import mapping_tests
except ImportError:
    pytest.skip("this build of Python does not include its own tests", allow_module_level=True)


def async_context(path):
    return asyncio.run(PersistentContext.create(path, durable=False))


def sync_context(path):
    return SyncPersistentContext.create(path, durable=False)


class Protocol(mapping_tests.BasicTestMappingProtocol):
    """CPython's own tests for mappings, with values that JSON can hold."""

    __test__ = False

    def setUp(self):
        """Create a directory for the files, and keep transactions open until the end."""
        self._directory = self.enterContext(tempfile.TemporaryDirectory())
        self._opened = self.enterContext(contextlib.ExitStack())
        self._numbers = itertools.count()

    def _reference(self):
        return {"1": "2", "key1": "value1", "key2": [1, 2, 3]}

    def _new_path(self):
        return Path(self._directory) / f"{next(self._numbers)}.json"


class TestAsyncContext(Protocol):
    """A loaded asyncio context."""

    __test__ = True

    def _empty_mapping(self):
        return async_context(self._new_path())


class TestSyncContext(Protocol):
    """A loaded synchronous context."""

    __test__ = True

    def _empty_mapping(self):
        return sync_context(self._new_path())


class TestLiveDictionary(Protocol):
    """The live dictionary of a context."""

    __test__ = True

    def _empty_mapping(self):
        return sync_context(self._new_path())._data


class TestLoadedLiveDictionary(Protocol):
    """The live dictionary of a context that has just loaded it."""

    __test__ = True

    def _empty_mapping(self):
        return sync_context(self._new_path())._data

    def _full_mapping(self, data):
        path = self._new_path()
        path.write_text(json.dumps(data), encoding="utf-8")
        return sync_context(path)._data


class TestTransaction(Protocol):
    """An open transaction on a file that contains the data."""

    __test__ = True

    def _empty_mapping(self):
        return self._full_mapping({})

    def _full_mapping(self, data):
        path = self._new_path()
        path.write_text(json.dumps(data), encoding="utf-8")
        return self._opened.enter_context(sync_context(path).transaction())


class TestLikeADict:
    """The live dictionary also has what dictionaries offer beyond mappings."""

    @pytest.fixture
    def data(self, tmp_path):
        """A live dictionary with three keys."""
        path = tmp_path / "state.json"
        path.write_text('{"a": 1, "b": [2], "c": 3}', encoding="utf-8")
        return sync_context(path)._data

    def test_popitem_takes_the_last_key(self, data):
        """popitem() removes the last key first."""
        assert (("c", 3), ["a", "b"]) == (data.popitem(), list(data))

    def test_it_can_be_walked_backwards(self, data):
        """Keys, items and values can be reversed."""
        backwards = list(reversed(data)), list(reversed(data.items())), list(reversed(data.values()))

        assert (["c", "b", "a"], [("c", 3), ("b", [2]), ("a", 1)], [3, [2], 1]) == backwards

    def test_pop_of_a_missing_key(self, data):
        """Without a default, pop() raises KeyError; otherwise it returns the default, whatever that is."""
        with pytest.raises(KeyError):
            data.pop("none")

        assert (None, 5) == (data.pop("none", None), data.pop("none", 5))


class TestLikeADictToo:
    """Contexts and transactions offer what programs use of dictionaries beyond mappings."""

    @pytest.fixture(params=["context", "transaction"])
    def data(self, request, tmp_path):
        """One with three keys."""
        path = tmp_path / "state.json"
        path.write_text('{"a": 1, "b": [2], "c": 3}', encoding="utf-8")
        context = sync_context(path)
        if request.param == "context":
            yield context
        else:
            with context.transaction() as tx:
                yield tx

    def test_it_can_be_walked_backwards(self, data):
        """Itself and its views."""
        backwards = [list(reversed(part)) for part in (data, data.keys(), data.items(), data.values())]

        assert [["c", "b", "a"], ["c", "b", "a"], [("c", 3), ("b", [2]), ("a", 1)], [3, [2], 1]] == backwards

    def test_it_can_be_updated_by_an_operator(self, data):
        """It stays the same object."""
        same = data
        data |= {"a": 5}
        data |= [("d", 4)]

        assert data is same
        assert {"a": 5, "b": [2], "c": 3, "d": 4} == dict(data)
