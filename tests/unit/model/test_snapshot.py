"""The empty snapshot works like any other, before all changes and after them."""

from persistent_context import MISSING
from persistent_context._model.snapshot import NOTHING
from persistent_context._stores.jsonfile.document import EMPTY

FILE = EMPTY.changed({"a": b"1", "b": b"2"})


class TestNothing:
    def test_it_holds_nothing(self):
        """The empty snapshot has no keys and no parts."""
        assert (0, False) == (NOTHING.revision, NOTHING.exists)
        assert ({}, [], []) == (NOTHING.get(["a"]), [*NOTHING.keys()], [*NOTHING.parts()])

    def test_all_that_there_was_is_gone_in_it(self):
        """Its changes since a state are the deletions of all keys."""
        assert ({"a": MISSING, "b": MISSING}, {}) == (NOTHING.changes_since(FILE), NOTHING.changes_since(NOTHING))

    def test_all_that_there_is_has_come_since(self):
        """The changes of a state since the empty snapshot are all of its entries."""
        assert {"a": b"1", "b": b"2"} == FILE.changes_since(NOTHING)
