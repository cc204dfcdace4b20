"""Builds that watch wrongly."""

from __future__ import annotations

from typing import Final

from stress.mutants.model import Edit, Mutant, Promise, suite

WATCH: Final = (
    Mutant(
        "own-changes-told",
        "What the context writes itself is told as another's change.",
        Promise.MEMORY,
        (Edit("_watch", "_texts(self._seen, now) | own\n", "_texts(self._seen, now)\n"),),
        (suite("watch::TestOwnChanges::test_what_the_context_writes_itself_is_no_news"),),
    ),
    Mutant(
        "own-change-under-way-told",
        "The file is looked at between a replacing of our own and the note that it was our own.",
        Promise.MEMORY,
        (Edit("_watch", "        with queue.between_commits():\n", "        if True:\n"),),
        (suite("watch::TestLooks::test_an_own_write_that_is_under_way_is_waited_for"),),
    ),
    Mutant(
        "change-over-own-one-missed",
        "A change back to what stood in the file before our own write is not told.",
        Promise.MEMORY,
        (Edit("_watch", "        now |= _texts(document, own.keys() - now.keys())\n", ""),),
        (suite("watch::TestOwnChanges::test_a_change_over_an_own_one_is_told_from_it", limit=10),),
    ),
    Mutant(
        "last-change-missed",
        "What a look has found is forgotten if nobody takes it before the next one.",
        Promise.MEMORY,
        (
            Edit(
                "_watch",
                "        for key, text in now.items():\n            old =",
                "        self._news = {}\n        for key, text in now.items():\n            old =",
            ),
        ),
        (suite("watch::TestLooks::test_news_that_nobody_took_is_kept_with_the_oldest_value"),),
    ),
)
