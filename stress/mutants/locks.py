"""Builds that lock, unlock, stamp or show the lock file wrongly."""

from __future__ import annotations

from typing import Final

from stress.mutants.model import Edit, Mutant, Promise, stress, suite

_HAMMER = stress(
    "--processes 6 --tasks 4 --seconds 3 --kill-every 0 --stop-every 0 --cancel-every 0 --fork-every 0 --foreign 0"
    " --seed 1 --quiet"
)
_INCREMENTS = suite("processes::TestNothingIsLost::test_increments")

LOCKS: Final = (
    Mutant(
        "no-file-lock",
        "The lock is said to be had without asking the kernel.",
        Promise.LOST,
        (Edit("flock", "bool(filelock.lock_descriptor(fd, blocking=False))", "True"),),
        (_INCREMENTS, _HAMMER),
    ),
    Mutant(
        "unlocked-before-the-replace",
        "The lock is released just before the new file replaces the old one.",
        Promise.LOST,
        (
            Edit(
                "store",
                "            written = replace(path",
                "            self._lock.release()\n            written = replace(path",
            ),
            Edit(
                "store",
                "            self._lock.release()\n        finally",
                "            if not self.bytes_written:\n                self._lock.release()\n        finally",
            ),
            Edit("store", "check=self._lock.check", "check=lambda: None"),
        ),
        (_INCREMENTS, _HAMMER),
    ),
    Mutant(
        "lock-file-deleted-on-release",
        "The lock file is deleted when it is released, while others wait for it.",
        Promise.LOST,
        (
            Edit(
                "lock",
                "            unlock(file.fd)\n        except OSError:",
                "            unlock(file.fd)\n            os.unlink(self.path)\n        except OSError:",
            ),
        ),
        (suite("processes::TestForeignLocks::test_the_lock_file_is_never_deleted"),),
    ),
    Mutant(
        "deleted-lock-file-taken-for-the-lock",
        "A lock counts though its file was deleted while it was waited for.",
        Promise.LOST,
        (
            Edit(
                "lock",
                "                status = file.status_at_path()\n",
                "                status = file.status_at_path() or (file.status if waited else None)\n",
            ),
        ),
        (suite("moments::TestTheLockFile::test_a_deleted_one_that_was_waited_for_is_no_lock"),),
    ),
    Mutant(
        "deleted-lock-file-not-noticed",
        "A file is replaced without checking that the lock file is still the one that was locked.",
        Promise.LOST,
        (Edit("store", "check=self._lock.check", "check=lambda: None"),),
        (suite("processes::TestALostLock::test_a_transaction_whose_lock_file_went_writes_nothing"),),
    ),
    Mutant(
        "transaction-repeated-after-a-lost-lock",
        "A transaction that lost its lock is written later, over what others wrote meanwhile.",
        Promise.LOST,
        (Edit("operations", "    repeatable = False\n", ""),),
        (suite("processes::TestALostLock::test_a_transaction_whose_lock_file_went_writes_nothing"),),
    ),
    Mutant(
        "forked-child-unlocks",
        "A forked child unlocks what it inherited, which releases its parent's lock, instead of closing it.",
        Promise.LOST,
        (
            Edit(
                "lock",
                "        self._wait = None\n        self._files.close_all()\n",
                "        self._wait = None\n        for file in self._files._open:\n            unlock(file.fd)\n",
            ),
        ),
        (suite("processes::TestForks::test_a_child_cannot_release_its_parents_lock"),),
    ),
    Mutant(
        "forked-child-keeps-the-descriptor",
        "A forked child keeps its parent's lock open, so that it outlasts the parent.",
        Promise.STARVES,
        (Edit("registry", "            queue.store.after_fork_in_child()\n", "            pass\n"),),
        (suite("processes::TestForks::test_a_forked_child_does_not_outlast_a_killed_holder"),),
    ),
    Mutant(
        "polling-for-the-lock",
        "Who waits asks for the lock now and then, and does not stand in the kernel's queue.",
        Promise.STARVES,
        (
            Edit(
                "flock",
                "        fcntl.flock(fd, fcntl.LOCK_EX)\n",
                "        while not try_lock(fd):\n            threading.Event().wait(0.005)\n",
            ),
        ),
        (suite("moments::TestWaiting::test_who_waits_stands_in_the_queue_of_the_kernel"),),
    ),
    Mutant(
        "codec-imported-in-a-cycle",
        "The first cycle imports a codec, of which a fork in another thread makes half of one in the child.",
        Promise.FAILURE,
        (Edit("stamp", 'boot_id", encoding="utf-8"', 'boot_id", encoding="ascii"'),),
        (suite("processes::TestForks::test_no_call_imports_a_module"),),
    ),
    Mutant(
        "stamp-not-erased",
        "The stamp of a former holder stays in the lock file, and is shown as the holder.",
        Promise.STARVES,
        (
            Edit(
                "lock",
                "            if self._is_stamped:\n                with contextlib",
                "            if False:\n                with contextlib",
            ),
        ),
        (suite("processes::TestTheHolder::test_a_former_holder_is_not_shown_for_a_holder_without_a_stamp"),),
    ),
    Mutant(
        "dead-holder-shown",
        "A process that is dead is shown as the holder.",
        Promise.STARVES,
        (Edit("stamp", "    if verified and not _is_alive(pid, start):\n        return nobody\n", ""),),
        (suite("processes::TestTheHolder::test_a_dead_process_is_not_shown_for_a_holder_without_a_stamp"),),
    ),
    Mutant(
        "holder-asked-once",
        "A process that has just taken the lock is said to be one that does not say who it is.",
        Promise.STARVES,
        (Edit("lock", "for pause in _LOOKS:", "for pause in _LOOKS[:1]:"),),
        (suite("processes::TestTheHolder::test_who_has_just_taken_the_lock_is_known"),),
    ),
    Mutant(
        "lock-file-through-a-link",
        "A link that somebody planted under the lock file's name is followed.",
        Promise.ACCESS,
        (
            Edit(
                "lockfile",
                "        flags = os.O_RDWR | NO_FOLLOW | NO_WAIT\n",
                "        flags = os.O_RDWR | NO_WAIT\n",
            ),
        ),
        (suite("bad_places::TestTheKindOfTheLockFile::test_a_link_is_never_followed[async-a file-incr]", limit=10),),
    ),
    Mutant(
        "lock-file-open-to-all",
        "For a moment, a new lock file can be opened by more users than the data file.",
        Promise.ACCESS,
        (Edit("lockfile", "mode = 0o600 if os.path.exists(self._data_path) else 0o666", "mode = 0o666"),),
        (suite("moments::TestTheLockFile::test_it_is_never_open_to_more_users_than_the_file"),),
    ),
    Mutant(
        "lock-file-closed-to-others",
        "A second user who may write the data file may not lock it.",
        Promise.ACCESS,
        (
            Edit(
                "lock",
                "            access.give_to(self._file.fd, self._status, mask=0o666)\n",
                "            pass\n",
            ),
        ),
        (suite("save_and_load::TestModes::test_the_lock_follows_the_file"),),
    ),
    Mutant(
        "stranger-s-file-stamped",
        "A file that was put under the lock file's name by a hard link is written to.",
        Promise.ACCESS,
        (Edit("lock", "status.st_nlink == 1  #", "True  #"),),
        (suite("bad_places::TestTheKindOfTheLockFile::test_a_hard_link_changes_nobody_s_file"),),
    ),
)
