"""Builds that lock, unlock, stamp or show the lock file wrongly."""

from __future__ import annotations

from typing import Final

from stress.mutants.model import Edit, Mutant, Promise, stress, stress_of, suite

_HAMMER = stress(
    "--processes 6 --tasks 4 --seconds 3 --kill-every 0 --stop-every 0 --cancel-every 0 --fork-every 0 --foreign 0"
    " --seed 1 --quiet"
)
_INCREMENTS = suite("processes::TestNothingIsLost::test_increments")

LOCKS: Final = (
    Mutant(
        "no-file-lock",
        "The lock is assumed to be held, without asking the kernel.",
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
                "jsonfile/session",
                "            written = replace(path",
                "            self.lock.release()\n            written = replace(path",
            ),
            Edit(
                "jsonfile/session",
                "            self.lock.release()\n        finally",
                "            if not self.bytes_written:\n                self.lock.release()\n        finally",
            ),
            Edit("jsonfile/session", "check=self.lock.check", "check=lambda: None"),
        ),
        (_INCREMENTS, _HAMMER, stress_of("--threads 2")),
    ),
    Mutant(
        "closed-before-the-commit",
        "A cycle closes its session, and then commits without the lock.",
        Promise.LOST,
        (
            Edit(
                "cycle",
                "                try:\n                    session.commit(",
                "                session.snapshot\n                _close(session, name)\n"
                "                try:\n                    session.commit(",
            ),
        ),
        (_INCREMENTS, _HAMMER),
    ),
    Mutant(
        "read-before-the-lock",
        "A session uses the content that the file had before the lock was granted.",
        Promise.LOST,
        (
            Edit(
                "jsonfile/store",
                "        held = self._lock.acquire(purpose, wait=wait)\n",
                "        early = self.snapshot()\n        held = self._lock.acquire(purpose, wait=wait)\n",
            ),
            Edit(
                "jsonfile/store",
                "if held.waited else 0.0)\n",
                "if held.waited else 0.0)\n        session._document = early\n",
            ),
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
                "            unlock(file.fd)\n        except ",
                "            unlock(file.fd)\n            os.unlink(self.path)\n        except ",
            ),
        ),
        (suite("planted_files::TestTheKindOfTheLockFile::test_it_is_never_deleted"),),
    ),
    Mutant(
        "deleted-lock-file-taken-for-the-lock",
        "A lock counts as granted although its file was deleted during the wait.",
        Promise.LOST,
        (
            Edit(
                "lock",
                "                status = file.status_at_path()\n",
                "                status = file.status_at_path() or (file.status if waited else None)\n",
            ),
        ),
        (suite("lock::TestTheLockFile::test_a_deleted_one_that_was_waited_for_does_not_count"),),
    ),
    Mutant(
        "kept-lock-file-trusted",
        "A lock file that was kept open counts as the lock although another one is at its path by now.",
        Promise.LOST,
        (
            Edit(
                "lock",
                "                status = file.status_at_path()\n",
                "                status = file.status_at_path() or (None if file.is_new else file.status)\n",
            ),
        ),
        (
            suite("kept_file::TestTheKeptFile::test_one_that_is_no_longer_at_its_path_is_not_used"),
            suite("holders::TestALostLock::test_a_lock_file_deleted_between_two_calls_is_made_again", limit=15),
        ),
    ),
    Mutant(
        "deleted-lock-file-not-noticed",
        "A file is replaced without checking that the lock file is still the one that was locked.",
        Promise.LOST,
        (Edit("jsonfile/session", "check=self.lock.check", "check=lambda: None"),),
        (suite("holders::TestALostLock::test_a_transaction_whose_lock_file_went_writes_nothing"),),
    ),
    Mutant(
        "transaction-repeated-after-a-lost-lock",
        "A transaction that lost its lock is written later, over what others wrote in the meantime.",
        Promise.LOST,
        (Edit("operations", "    repeatable = False\n", ""),),
        (suite("holders::TestALostLock::test_a_transaction_whose_lock_file_went_writes_nothing"),),
    ),
    Mutant(
        "lost-session-repeated-for-a-transaction",
        "A cycle that lost its lock is always repeated, even if it contained a transaction.",
        Promise.LOST,
        (Edit("cycle", " and all(request.operation.repeatable for request in applied):\n", ":\n"),),
        (suite("holders::TestALostLock::test_a_transaction_whose_lock_file_went_writes_nothing"),),
    ),
    Mutant(
        "lost-session-fails-an-increment",
        "A call that could be repeated fails if its session lost the lock.",
        Promise.FAILURE,
        (Edit("cycle", " and all(request.operation.repeatable for request in applied):\n", " and False:\n"),),
        (suite("queue::TestALostCycle::test_its_calls_are_applied_again_in_their_order"),),
    ),
    Mutant(
        "forked-child-unlocks",
        "A forked child unlocks the lock file that it inherited, which releases its parent's lock.",
        Promise.LOST,
        (
            Edit(
                "lock",
                "        self._wait = None\n        self._files.close_all()\n",
                "        self._wait = None\n        for file in self._files._open:\n            unlock(file.fd)\n",
            ),
        ),
        (suite("forks::TestForks::test_a_child_cannot_release_its_parents_lock"),),
    ),
    Mutant(
        "forked-child-keeps-the-descriptor",
        "A forked child keeps its parent's lock open, so that the lock outlasts the parent.",
        Promise.STARVES,
        (Edit("registry", "            queue.store.after_fork_in_child()\n", "            pass\n"),),
        (suite("forks::TestForks::test_a_forked_child_does_not_outlast_a_killed_holder"),),
    ),
    Mutant(
        "forked-child-keeps-the-idle-descriptor",
        "A forked child leaves its parent's idle lock file open, and shares the lock that the parent takes later.",
        Promise.STARVES,
        (
            Edit(
                "lock",
                "        self._idle.clear()\n        self._wait = None\n",
                "        self._files._open.difference_update(self._idle)\n        self._wait = None\n",
            ),
        ),
        (suite("kept_file::TestTheKeptFile::test_a_child_that_was_forked_between_two_holds_does_not_keep_the_lock"),),
    ),
    Mutant(
        "idle-descriptor-of-another-file-locked",
        "A descriptor that the program has closed, and may have reused for another file, is taken for the lock file.",
        Promise.LOST,
        (Edit("lock", "                if file.has_its_descriptor():\n", "                if True:\n"),),
        (suite("kept_file::TestTheKeptFile::test_a_descriptor_that_the_program_has_closed_is_not_used[True]"),),
    ),
    Mutant(
        "idle-descriptor-outlives-its-lock",
        "The lock file stays open after the last context on the file is gone.",
        Promise.MEMORY,
        (Edit("lock", "        weakref.finalize(self, self._files.close_all).atexit = False\n", ""),),
        (suite("kept_file::TestTheKeptFile::test_none_is_left_by_contexts_that_are_gone"),),
    ),
    Mutant(
        "idle-descriptors-pile-up",
        "Every lock file that was ever released is kept open.",
        Promise.MEMORY,
        (Edit("lock", "        while len(self._idle) > 1:", "        while False:"),),
        (suite("kept_file::TestTheKeptFile::test_at_most_one_is_kept"),),
    ),
    Mutant(
        "closed-store-keeps-the-lock-file-open",
        "Closing a store leaves the lock file open.",
        Promise.MEMORY,
        (
            Edit(
                "lock",
                'unless it is locked."""\n        while self._idle:\n',
                'unless it is locked."""\n        while False:\n',
            ),
        ),
        (suite("kept_file::TestTheKeptFile::test_it_is_closed_with_its_lock"),),
    ),
    Mutant(
        "polling-for-the-lock",
        "A waiting thread polls the lock instead of waiting in the kernel's queue.",
        Promise.STARVES,
        (
            Edit(
                "flock",
                "        fcntl.flock(fd, fcntl.LOCK_EX)\n",
                "        while not try_lock(fd):\n            threading.Event().wait(0.005)\n",
            ),
        ),
        (suite("lock::TestWaiting::test_a_waiting_process_is_in_the_queue_of_the_kernel"),),
    ),
    Mutant(
        "codec-imported-in-a-cycle",
        "The first cycle imports a codec; a fork by another thread at that time leaves it half imported in the child.",
        Promise.FAILURE,
        (Edit("process", 'boot_id", encoding="utf-8"', 'boot_id", encoding="ascii"'),),
        (suite("forks::TestForks::test_no_call_imports_a_module"),),
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
        (suite("holders::TestTheHolder::test_a_former_holder_is_not_shown_for_a_holder_without_a_stamp"),),
    ),
    Mutant(
        "dead-holder-shown",
        "A dead process is shown as the holder.",
        Promise.STARVES,
        (Edit("process", "    if verified and not _is_alive(pid, start):\n        return None\n", ""),),
        (suite("planted_files::TestTheContentOfTheLockFile::test_a_stamp_of_somebody_who_was_killed"),),
    ),
    Mutant(
        "holder-asked-once",
        "A process that has just taken the lock is shown as a holder that does not identify itself.",
        Promise.STARVES,
        (Edit("lock", "for pause in _LOOKS:", "for pause in _LOOKS[:1]:"),),
        (suite("holders::TestTheHolder::test_who_has_just_taken_the_lock_is_known"),),
    ),
    Mutant(
        "lock-file-through-a-link",
        "A link that another user planted under the name of the lock file is followed.",
        Promise.ACCESS,
        (
            Edit(
                "lockfile",
                "        flags = os.O_RDWR | NO_FOLLOW | NO_WAIT\n",
                "        flags = os.O_RDWR | NO_WAIT\n",
            ),
        ),
        (suite("planted_files::TestTheKindOfTheLockFile::test_a_link_is_never_followed[async-a file-incr]", limit=10),),
    ),
    Mutant(
        "lock-file-open-to-all",
        "For a moment, a new lock file can be opened by more users than the data file.",
        Promise.ACCESS,
        (Edit("lockfile", "mode = 0o600 if os.path.exists(self._data_path) else 0o666", "mode = 0o666"),),
        (suite("lockfile::TestMaking::test_it_is_never_open_to_more_users_than_the_file"),),
    ),
    Mutant(
        "lock-file-closed-to-others",
        "Another user who may write the data file may not lock it.",
        Promise.ACCESS,
        (
            Edit(
                "lock",
                "            access.give_to(self._file.fd, self._status, mask=0o666)\n",
                "            pass\n",
            ),
        ),
        (suite("access::TestModes::test_the_lock_follows_the_file"),),
    ),
    Mutant(
        "stranger-s-file-stamped",
        "A file that was hard-linked to the lock file's name is written to.",
        Promise.ACCESS,
        (Edit("lock", "status.st_nlink == 1  #", "True  #"),),
        (suite("planted_files::TestTheKindOfTheLockFile::test_a_hard_link_changes_nobody_s_file"),),
    ),
)
