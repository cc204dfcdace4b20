"""Opening and reading: a file is read completely, however little a read returns."""

import json
import os

from persistent_context import SyncPersistentContext


class TestReading:
    def test_a_file_that_is_read_in_short_pieces_is_read_whole(self, tmp_path, monkeypatch):
        """A read may return less than requested."""
        path = tmp_path / "state.json"
        path.write_text(json.dumps({"a": "b" * 100}), encoding="utf-8")
        pread = os.pread
        monkeypatch.setattr(os, "pread", lambda fd, length, offset: pread(fd, min(length, 7), offset))

        assert {"a": "b" * 100} == SyncPersistentContext.create(path).get_all_data()
