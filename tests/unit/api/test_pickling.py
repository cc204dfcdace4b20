"""Contexts sent to other processes: the class, the path and the options arrive, and the context is not loaded."""

import copy
import json
import multiprocessing
import os
import pickle
import subprocess
import sys

import pytest

from persistent_context import ContextUsageError, SyncPersistentContext

OPTIONS = {"durable": False, "lock_timeout": 7.5, "on_conflict": "theirs", "on_corrupt": "raise", "journal": False}


def larger(key, base, mine, theirs):
    """A resolver that can be pickled."""
    return max(mine, theirs)


class Named(SyncPersistentContext):
    """A subclass defined by a program."""


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
class TestPickling:
    def test_class_path_and_options_arrive(self, face, path, protocol):
        """The result is a context of the same class on the same file with the same options."""
        ctx = face.open(path, **OPTIONS)
        back = pickle.loads(pickle.dumps(ctx, protocol))

        assert (face.cls, path, OPTIONS) == (type(back), back.filepath, back._options)

    def test_it_arrives_unloaded(self, face, path, protocol):
        """Neither memory nor unsaved changes are sent."""
        ctx = face.open(path)
        ctx["saved"] = 1
        face.do(ctx.save)
        ctx["unsaved"] = 2
        back = pickle.loads(pickle.dumps(ctx, protocol))
        with pytest.raises(ContextUsageError, match="not loaded"):
            back.get("unsaved")
        face.do(back.load)

        assert ({"saved": 1}, set(), {"unsaved"}) == (dict(back), back.unsaved_keys(), ctx.unsaved_keys())

    def test_a_relative_path_leads_to_the_same_file(self, face, path, protocol, monkeypatch):
        """A relative path arrives as an absolute one, whatever the other process's working directory."""
        monkeypatch.chdir(path.parent)
        text = pickle.dumps(face.cls(path.name), protocol)
        monkeypatch.chdir("/")

        assert path == pickle.loads(text).filepath

    def test_a_subclass_stays_one(self, path, protocol):
        """A subclass arrives as itself."""

        assert Named is type(pickle.loads(pickle.dumps(Named(path), protocol)))

    def test_a_resolver_travels_by_name(self, face, path, protocol):
        """A resolver is pickled by name, like any function."""
        back = pickle.loads(pickle.dumps(face.cls(path, on_conflict=larger), protocol))

        assert larger is back._options["on_conflict"]

    def test_a_resolver_without_a_name_does_not(self, face, path, protocol):
        """Pickling a resolver without a name raises instead of dropping the option."""
        with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
            pickle.dumps(face.cls(path, on_conflict=lambda key, base, mine, theirs: mine), protocol)


POOL = """
import multiprocessing, sys
from persistent_context import SyncPersistentContext

def count(ctx):
    return ctx.incr("n")

if __name__ == "__main__":
    method, path = sys.argv[1:]
    with multiprocessing.get_context(method).Pool(2) as pool:
        contexts = [SyncPersistentContext(path, durable=False) for _ in range(20)]
        print(sorted(pool.map(count, contexts, chunksize=1)))
"""


class TestPools:
    @pytest.mark.parametrize("method", ["fork", "spawn"])
    def test_mapping_over_contexts(self, path, tmp_path, method):
        """The processes of a pool get contexts as arguments, and no count is lost."""
        if method not in multiprocessing.get_all_start_methods():
            pytest.skip(f"this system has no start method {method}")
        program = tmp_path / "pool.py"
        program.write_text(POOL, encoding="utf-8")
        printed = subprocess.run(
            [sys.executable, str(program), method, str(path)], check=True, timeout=100, capture_output=True, text=True
        ).stdout

        assert (f"{[*range(1, 21)]}\n", {"n": 20}) == (printed, json.loads(path.read_text(encoding="utf-8")))


class TestCopies:
    @pytest.mark.parametrize("how", [copy.copy, copy.deepcopy])
    def test_are_refused_as_ever(self, face, path, how):
        """A copy in the same process would be taken for a copy of the values."""
        with pytest.raises(TypeError, match=r"cannot be copied; get_all_data\(\) copies its values"):
            how(face.open(path))

        assert [] == os.listdir(path.parent)
