"""What the command line prints."""

import sys
from types import SimpleNamespace

from persistent_context._cli.streams import say


class TestLines:
    def test_one_is_written_in_one_piece(self, monkeypatch):
        """A reader of a pipe never gets a line without its end, even if the stream does not buffer."""
        pieces = []
        monkeypatch.setattr(sys, "stdout", SimpleNamespace(write=pieces.append, flush=lambda: pieces.append("flushed")))
        say("a line")

        assert ["a line\n", "flushed"] == [piece for piece in pieces if piece]
