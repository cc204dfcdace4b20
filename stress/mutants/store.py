"""Builds in which a call returns before its result is durable, or the directory of the file changes unnoticed."""

from __future__ import annotations

from typing import Final

from stress.mutants.model import Edit, Mutant, Promise, suite

_NOTHING_TO_WRITE = "durability::TestADurableCallThatWritesNothing::"
_NEW_DIRECTORY = "durability::TestANewDirectory::"
_VOLATILE = "durability::TestAVolatileCall::"
_REMOVED = "place::TestTheDirectoryIsRemoved::"
_ABANDONED = "lock::TestAnAbandonedWait::"

STORE: Final = (
    Mutant(
        "nothing-to-write-unsynced",
        "A durable call that finds nothing to write is acknowledged although what it found may not be synced.",
        Promise.LOST,
        (Edit("jsonfile/session", "        elif durable and old.exists:", "        elif False:"),),
        (suite(_NOTHING_TO_WRITE + "test_it_syncs_what_it_found"),),
    ),
    Mutant(
        "nothing-to-write-name-unsynced",
        "A durable call that finds nothing to write syncs the file that it found, but not its name.",
        Promise.LOST,
        (
            Edit(
                "syncing",
                "        _sync_name(path, new_directory=new_directory)\n    except FileNotFoundError:\n",
                "    except FileNotFoundError:\n",
            ),
        ),
        (suite(_NOTHING_TO_WRITE + "test_it_syncs_what_it_found"),),
    ),
    Mutant(
        "nothing-to-write-failure-swallowed",
        "A failure to sync what was found is ignored.",
        Promise.LOST,
        (
            Edit(
                "syncing",
                '        raise durability_unknown(path, "there was nothing to write", error) from error\n',
                "        return\n",
            ),
        ),
        (suite(_NOTHING_TO_WRITE + "test_a_failure_leaves_durability_unknown"),),
    ),
    Mutant(
        "failed-sync-repeated",
        "After a failed sync, a durable call that finds nothing to write tries it again, and relies on its success.",
        Promise.LOST,
        (Edit("jsonfile/session", " or (new.exists and self._file.sync_failed)", ""),),
        (suite("durability::TestSyncing::test_one_of_what_was_found_is_not_tried_again"),),
    ),
    Mutant(
        "failed-sync-forgotten",
        "That a sync of the file has failed is forgotten with the last context of the file.",
        Promise.LOST,
        (
            Edit(
                "jsonfile/file",
                "        self.path: Final = path\n",
                "        self.path: Final = path\n        self.sync_failed = False\n",
            ),
        ),
        (suite("durability::TestSyncing::test_it_is_known_to_later_contexts_as_well"),),
    ),
    Mutant(
        "new-directory-of-another-unsynced",
        "A directory that another process has just made is taken for durable.",
        Promise.LOST,
        (Edit("syncing", "    if new_directory:\n", "    if False:\n"),),
        (suite(_NEW_DIRECTORY + "test_one_of_a_killed_process_is_synced_by_the_next"),),
    ),
    Mutant(
        "new-lock-file-vouches-for-the-directory",
        "A directory with a new lock file is taken for durable, as if an earlier holder had synced it.",
        Promise.LOST,
        (Edit("lock", "before != EMPTY_STAMP and not", 'before not in (b"", EMPTY_STAMP) and not'),),
        (suite("durability::TestTheOrderOfTheSteps::test_new_directories_are_durable_too"),),
    ),
    Mutant(
        "volatile-call-breaks-a-promise",
        "A call that is not durable replaces a file that must survive a power loss by one that is not synced.",
        Promise.LOST,
        (Edit("jsonfile/session", "durable=self.lock.promised, check", "durable=durable, check"),),
        (suite(_VOLATILE + "test_it_syncs_the_new_file_where_something_was"),),
    ),
    Mutant(
        "promise-dies-with-its-holder",
        "A holder does not record earlier promises of durability, so they are forgotten if it is killed.",
        Promise.LOST,
        (Edit("lock", "promised=self.promised or not before))", "promised=False))"),),
        (suite(_VOLATILE + "test_a_promise_outlives_a_killed_holder"),),
    ),
    Mutant(
        "promise-lost-in-a-power-loss",
        "The record that something must survive a power loss does not survive one itself.",
        Promise.LOST,
        (Edit("lock", "            sync_data(self._file.fd)\n", ""),),
        (suite(_VOLATILE + "test_a_promise_outlives_a_power_loss"),),
    ),
    Mutant(
        "foreign-lock-file-promises-nothing",
        "If the lock file records no promises, a call that is not durable assumes that there were none.",
        Promise.LOST,
        (Edit("lock", " or is_erased or not self._is_stamped\n", " or is_erased\n"),),
        (suite(_VOLATILE + "test_behind_foreign_content_everything_counts_as_promised"),),
    ),
    Mutant(
        "emptied-lock-file-promises-nothing",
        "Emptying or deleting the lock file erases the record that something must survive a power loss.",
        Promise.LOST,
        (Edit("lock", " or is_erased or not", " or not"),),
        (suite(_VOLATILE + "test_a_promise_outlives_its_record"),),
    ),
    Mutant(
        "careless-call-vouches-for-the-directory",
        "A call that is not durable, and syncs nothing, marks the directory as durable.",
        Promise.LOST,
        (
            Edit(
                "jsonfile/session",
                "            return\n        try:\n            complete(",
                "            return self.lock.note_durable_directory()\n        try:\n            complete(",
            ),
        ),
        (suite(_NEW_DIRECTORY + "test_one_of_a_volatile_call_is_synced_by_the_next_durable_one"),),
    ),
    Mutant(
        "directory-never-vouched-for",
        "Every durable call syncs the directory above, as if each were the first.",
        Promise.LOOP,
        (
            Edit(
                "lock",
                "before != EMPTY_STAMP and not file.directory_is_durable",
                "True",
            ),
        ),
        (suite(_NEW_DIRECTORY + "test_one_of_a_volatile_call_is_synced_by_the_next_durable_one"),),
    ),
    Mutant(
        "made-by-another-fails",
        "If two processes make the same directory, the slower one fails.",
        Promise.FAILURE,
        (
            Edit(
                "lockfile",
                "contextlib.suppress(FileExistsError, FileNotFoundError)",
                "contextlib.suppress(FileNotFoundError)",
            ),
        ),
        (suite(_NEW_DIRECTORY + "test_one_that_another_process_creates_first_is_used"),),
    ),
    Mutant(
        "removed-directory-fails-the-cycle",
        "Removing the directory during a cycle fails its calls, which could be repeated.",
        Promise.FAILURE,
        (Edit("jsonfile/session", "            self._wait_for_the_lock_file_to_go()\n", ""),),
        (suite(_REMOVED + "test_under_a_cycle"),),
    ),
    Mutant(
        "half-removed-directory-fails-the-cycle",
        "A directory that is just being removed fails the calls of a cycle, which could be repeated.",
        Promise.FAILURE,
        (
            Edit(
                "jsonfile/session",
                "        for _ in several_looks():\n            self.lock.check()\n",
                "        self.lock.check()\n",
            ),
        ),
        (suite(_REMOVED + "test_file_by_file"),),
    ),
    Mutant(
        "standard-stream-taken",
        "A file of the library becomes the standard output of a process that has closed its own.",
        Promise.TORN,
        (Edit("opening", "    if fd > _LAST_STANDARD_STREAM:\n", "    if True:\n"),),
        (suite("store::TestClosedStreams::test_what_is_printed_lands_in_no_file"),),
    ),
    Mutant(
        "printed-meanwhile-stays",
        "Output that is printed while a temporary file is briefly the standard output stays in the file.",
        Promise.TORN,
        (Edit("opening", "    if flags & os.O_EXCL:  #", "    if False:  #"),),
        (suite("store::TestClosedStreams::test_nor_what_is_printed_between"),),
    ),
    Mutant(
        "repeats-warned-of-at-each-look",
        "The same warning is logged again and again while a watch looks at a file that repeats keys.",
        Promise.FAILURE,
        (Edit("jsonfile/file", "        if content != self._warned_of:\n", "        if True:\n"),),
        (suite("store::TestReading::test_repeated_keys_are_warned_of_once_a_content"),),
    ),
    Mutant(
        "leftovers-of-later-crashes-stay",
        "A context that has looked for leftovers once never looks again, even if a holder has died since.",
        Promise.CLOBBERED,
        (Edit("jsonfile/store", "            if held.holder_crashed or not", "            if not"),),
        (suite("names::TestLeftovers"),),
    ),
    Mutant(
        "leftover-of-another-user-fails",
        "A leftover that may not be removed fails the call that found it.",
        Promise.FAILURE,
        (
            Edit(
                "names",
                "        with contextlib.suppress(OSError):  # gone, or owned by another user\n",
                "        with contextlib.nullcontext():\n",
            ),
        ),
        (suite("bad_places::TestRights::test_a_leftover_that_may_not_be_removed"),),
    ),
    Mutant(
        "moved-aside-unsynced",
        "A file that was moved aside may be lost in a power loss after its place has been taken.",
        Promise.CLOBBERED,
        (
            Edit(
                "names",
                "    if durable:\n        sync_directory(os.path.dirname(path))\n    return aside\n",
                "    return aside\n",
            ),
        ),
        (suite("durability::TestMovingAside"),),
    ),
    Mutant(
        "every-cycle-counted-as-a-wait",
        "A cycle that found the lock free is counted as one that waited.",
        Promise.FAILURE,
        (Edit("counts", "self._waits += session.waited > 0", "self._waits += session.waited >= 0"),),
        (suite("lock::TestWaiting"),),
    ),
    Mutant(
        "waited-once-waited-always",
        "A cycle that found the lock free is reported as having waited if an earlier one did.",
        Promise.FAILURE,
        (Edit("lock", "purpose, waited=waited)", "purpose, waited=self._wait is not None)"),),
        (suite("lock::TestWaiting"),),
    ),
    Mutant(
        "failed-unlock-is-an-error",
        "A failed unlock is logged as an error, although closing the lock file makes up for it.",
        Promise.FAILURE,
        (
            Edit(
                "lock",
                "            with contextlib.suppress(OSError):  # closing unlocks it as well",
                "            with contextlib.nullcontext():  # closing unlocks it as well",
            ),
        ),
        (suite("lock::TestReleasing::test_an_unlock_that_fails_is_made_up_for_by_closing"),),
    ),
    Mutant(
        "failed-release-keeps-the-lock",
        "An error while the stamp is erased leaves the lock held for as long as the process lives.",
        Promise.STARVES,
        (
            Edit(
                "lock",
                "        finally:\n            self._lock.give_back(self._file)\n",
                "        except KeyError:\n            pass\n"
                "        else:\n            self._lock.give_back(self._file)\n",
            ),
        ),
        (suite("lock::TestReleasing::test_no_error_keeps_the_lock"),),
    ),
    Mutant(
        "handler-waits-for-its-own-thread",
        "A signal handler that locks another file while a lock file is being opened waits forever.",
        Promise.CANCELLING,
        (Edit("flock", "fork_gate: Final = threading.RLock()", "fork_gate: Final = threading.Lock()"),),
        (suite("lock::TestASignalHandler", limit=10),),
    ),
    Mutant(
        "vain-wait-unnoticed",
        "A wait for a lock file that was deleted while its holder was stopped is treated like any other.",
        Promise.STARVES,
        (
            Edit(
                "lock",
                "            return wait.file.status_at_path() is None and wait.settle()\n",
                "            return False\n",
            ),
        ),
        (suite("lock::TestWhetherAWaitIsAbandoned"),),
    ),
    Mutant(
        "abandoned-wait-takes-the-lock",
        "An abandoned wait still takes the lock, which is then never released.",
        Promise.STARVES,
        (
            Edit(
                "lock",
                "                raise\n        return wait.settle()\n",
                "                raise\n        return True\n",
            ),
        ),
        (suite(_ABANDONED + "test_it_keeps_no_lock_when_it_is_granted_one"),),
    ),
    Mutant(
        "abandoned-wait-not-unlocked",
        "An abandoned wait closes its lock without unlocking it, so a forked child keeps it.",
        Promise.STARVES,
        (
            Edit(
                "lock",
                "                unlock(file.fd)\n        finally",
                "                pass\n        finally",
            ),
        ),
        (suite(_ABANDONED + "test_it_keeps_no_lock_when_it_is_granted_one"),),
    ),
    Mutant(
        "abandoned-wait-unknown-to-children",
        "A forked child inherits the descriptors of abandoned waits, and keeps them open.",
        Promise.STARVES,
        (Edit("lockfile", "            self._open.add(file)\n", "            self._open = {file}\n"),),
        (suite(_ABANDONED + "test_a_forked_child_keeps_none_of_its_descriptors"),),
    ),
    Mutant(
        "zombie-shown",
        "A dead process that its parent has not yet reaped is shown as the holder.",
        Promise.STARVES,
        (
            Edit(
                "process",
                "        return process[0] not in _DEAD and process[1] == start\n",
                "        return process[1] == start\n",
            ),
        ),
        (suite("stamp::TestAZombie::test_it_is_not_shown_for_the_holder"),),
    ),
)
