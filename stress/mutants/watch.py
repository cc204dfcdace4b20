"""Builds that watch wrongly."""

from __future__ import annotations

from typing import Final

from stress.mutants.model import Edit, Mutant, Promise, stress_of, suite

WATCH: Final = (
    Mutant(
        "own-changes-told",
        "The context's own writes are reported as another's changes.",
        Promise.MEMORY,
        (Edit("watch", "**self._since, **own}", "**self._since}"),),
        (suite("watch::TestOwnChanges::test_what_the_context_writes_itself_is_not_yielded"),),
    ),
    Mutant(
        "own-change-under-way-told",
        "What is read while an own write is in flight is taken for what was there before it.",
        Promise.MEMORY,
        (
            Edit(
                "watch",
                "                if not tracker.is_writing and tracker.written == position:\n",
                "                if True:\n",
            ),
        ),
        (suite("observer::TestLooks::test_a_commit_just_before_the_reading_is_not_reported"),),
    ),
    Mutant(
        "a-write-waits-for-a-look",
        "A commit waits until a watch has read the file.",
        Promise.STARVES,
        (
            Edit(
                "watch",
                "self._guard.acquire(blocking=False):\n            try:\n                self._fold",
                "self._guard.acquire():\n            try:\n                self._fold",
            ),
            Edit("watch", "if len(self._notes) > _NOTES_KEPT and", "if"),
        ),
        (suite("observer::TestLooks::test_a_commit_does_not_wait_for_a_slow_look", limit=15),),
    ),
    Mutant(
        "passed-through-taken-for-own",
        "What a call found in the file, and left there, is taken for an own write.",
        Promise.MEMORY,
        (
            Edit("operations", "{} if text is found else {self._key: text}", "{self._key: text}"),
            Edit("draft", "if text != before:\n                written", "if True:\n                written"),
        ),
        (suite("observer::TestLooks::test_the_value_that_a_failed_add_found_is_reported"),),
    ),
    Mutant(
        "overwritten-news-told",
        "A change that the context itself has overwritten is still reported, from an outdated value.",
        Promise.MEMORY,
        (
            Edit(
                "watch",
                "                self._news.pop(key, None)  # the context's own write is the latest\n",
                "                pass\n",
            ),
        ),
        (suite("observer::TestLooks::test_news_that_the_context_has_overwritten_is_dropped"),),
    ),
    Mutant(
        "late-outcome-told-as-news",
        "A watch does not know of writes that were committed before it began, and had not arrived yet.",
        Promise.MEMORY,
        (Edit("watch", "        self._notes.append((position, tracker.written_since(position)))\n", ""),),
        (suite("observer::TestLooks::test_an_own_write_whose_outcome_has_not_arrived_is_not_reported"),),
    ),
    Mutant(
        "notes-pile-up",
        "A watch that is not read remembers every key that came and went.",
        Promise.MEMORY,
        (Edit("watch", "            del own[key]\n", "            pass\n"),),
        (suite("observer::TestLooks::test_own_writes_that_are_never_looked_at_take_no_space"),),
    ),
    Mutant(
        "a-dead-alarm-is-not-told",
        "A watch whose thread has failed waits forever.",
        Promise.FAILURE,
        (Edit("events", "        fail(error)\n        notify()\n", "        pass\n"),),
        (suite("watch::TestTheEnd::test_an_alarm_that_fails_ends_the_wait_with_its_error", limit=10),),
    ),
    Mutant(
        "no-watch-of-odd-names",
        "A directory whose name is not UTF-8 ends the thread that watches it.",
        Promise.FAILURE,
        (Edit("events", "(ImportError, OSError, RuntimeError, UnicodeError)", "(ImportError, OSError)"),),
        (suite("events::TestTheAlarm::test_a_directory_whose_name_is_not_utf_8_is_watched", limit=15),),
    ),
    Mutant(
        "change-over-own-one-missed",
        "A change back to the value before an own write is not reported.",
        Promise.MEMORY,
        (Edit("watch", "        now |= _texts(snapshot, (own.keys() | self._since.keys()) - now.keys())\n", ""),),
        (suite("watch::TestOwnChanges::test_a_change_over_an_own_one_starts_from_it", limit=10),),
    ),
    Mutant(
        "last-change-missed",
        "Changes that a look has found are forgotten if they are not taken before the next look.",
        Promise.MEMORY,
        (
            Edit(
                "watch",
                "        for key, text in now.items():\n            if key in own:",
                "        self._news = {}\n        for key, text in now.items():\n            if key in own:",
            ),
        ),
        (
            suite("observer::TestLooks::test_a_change_that_was_not_taken_is_kept_with_the_oldest_value"),
            stress_of("--observing 1 --pages 1"),
        ),
    ),
)
