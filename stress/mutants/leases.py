"""Builds whose leases do not exclude each other, or whose tokens do not grow."""

from __future__ import annotations

from typing import Final

from stress.mutants.model import Edit, Mutant, Promise, suite

_FACES = "lease::TestBothFaces::"
_TASKS = "lease::TestTasks::"
_NUMBERS = "lease_files::TestNumbers::"
_FILES = "lease_files::TestHowManyFiles::"

LEASES: Final = (
    Mutant(
        "leases-share-a-file",
        "A lease also excludes leases of other names.",
        Promise.LEASE,
        (
            Edit("jsonfile/lease", '{data_name}\\0{name}".encode', '{data_name}".encode'),
            Edit("jsonfile/lease", "-{readable}-", "-a-"),
        ),
        (suite("contract_leases::TestExclusive::test_names_and_kinds_and_the_state_are_apart[json]"),),
    ),
    Mutant(
        "leases-of-long-names-are-one",
        "Leases with long names are shared between different files.",
        Promise.LEASE,
        (Edit("jsonfile/lease", '{data_name}\\0{name}".encode', '{name}".encode'),),
        (suite("lease_files::TestNames::test_a_long_name_of_the_data_file"),),
    ),
    Mutant(
        "token-by-the-clock-alone",
        "A token is smaller than an earlier one after the clock was set back.",
        Promise.LEASE,
        (Edit("jsonfile/lease", "max(last + 1, time.time_ns() // 1000)", "time.time_ns() // 1000"),),
        (suite(f"{_NUMBERS}test_it_grows_though_the_clock_is_set_back"),),
    ),
    Mutant(
        "token-by-the-file-alone",
        "Tokens start again when the lease's file is deleted.",
        Promise.LEASE,
        (Edit("jsonfile/lease", "max(last + 1, time.time_ns() // 1000)", "last + 1"),),
        (suite(f"{_NUMBERS}test_it_grows_though_the_file_is_deleted"),),
    ),
    Mutant(
        "token-not-synced",
        "A token may be issued again after a power loss.",
        Promise.LEASE,
        (Edit("jsonfile/lease", "    sync_data(file.fd)\n", ""),),
        (suite(f"{_NUMBERS}test_it_is_synced_before_anyone_has_it"),),
    ),
    Mutant(
        "token-over-a-foreign-file",
        "A token is written into another program's file.",
        Promise.ACCESS,
        (Edit("jsonfile/lease", "    if not held.is_stamped:\n", "    if False:\n"),),
        (suite(f"{_NUMBERS}test_a_foreign_file_is_not_written_to"),),
    ),
    Mutant(
        "lease-files-for-ever",
        "Unused lease files are never removed.",
        Promise.LEASE,
        (Edit("jsonfile/lease", "            self._leases.sweep()\n", ""),),
        (suite(f"{_FILES}test_those_unused_for_a_day_are_removed"),),
    ),
    Mutant(
        "held-lease-file-removed",
        "A lease file that is old is removed while it is held.",
        Promise.LEASE,
        (Edit("jsonfile/lease", "if is_unused and try_lock(fd) and", "if is_unused and"),),
        (suite(f"{_FILES}test_those_unused_for_a_day_are_removed"),),
    ),
    Mutant(
        "young-lease-file-removed",
        "A lease file is removed as soon as it is free, so the next token depends only on the clock.",
        Promise.LEASE,
        (Edit("jsonfile/lease", " and status.st_mtime < time.time() - _UNUSED_SECONDS\n", "\n"),),
        (suite(f"{_FILES}test_those_unused_for_a_day_are_removed"),),
    ),
    Mutant(
        "computations-leave-files",
        "Every computation leaves a file.",
        Promise.ONCE,
        (
            Edit(
                "jsonfile/lease", "                    os.unlink(self._lock.file.path)\n", "                    pass\n"
            ),
        ),
        (suite("once::TestBothFaces::test_it_is_computed_once"),),
    ),
    Mutant(
        "computation-released-before-its-file-is-removed",
        "The file of a computation is removed after its release, while the next one may hold it.",
        Promise.ONCE,
        (
            Edit(
                "jsonfile/lease",
                "        self._is_open = False\n        try:\n",
                "        self._is_open = False\n        self._lock.release()\n        try:\n",
            ),
        ),
        (suite(f"{_FILES}test_it_is_removed_under_its_lock"),),
    ),
    Mutant(
        "lost-lease-unnoticed",
        "A holder is not told that the lease's file was deleted.",
        Promise.FAILURE,
        (Edit("jsonfile/lease", "            self._lock.check()\n", "            pass\n"),),
        (
            suite(f"{_FACES}test_a_deleted_file_is_noticed"),
            suite("contract_leases::TestLost::test_a_lease_that_was_lost_says_so[json]"),
        ),
    ),
    Mutant(
        "lease-limited-by-lock-timeout",
        "A lease is given up after the timeout for the file's lock.",
        Promise.LEASE,
        (Edit("_api/lease", "return math.inf if timeout is None", "return 0.3 if timeout is None"),),
        (suite("leases::TestLeases::test_a_waiting_call_gets_the_lease_of_a_killed_holder"),),
    ),
    Mutant(
        "lease-stays-with-the-block-that-failed",
        "An error in the block leaves the lease held.",
        Promise.LEASE,
        (Edit("aio_lease", "        elif error is None or not turn.is_inherited:\n", "        elif error is None:\n"),),
        (suite(f"{_FACES}test_an_error_of_the_block_releases_it[async]", limit=10),),
    ),
    Mutant(
        "lease-error-hides-that-of-the-block",
        "The error of a lost lease replaces the error of the block.",
        Promise.FAILURE,
        (Edit("_api/lease", "            if error is None:\n", "            if True:\n"),),
        (suite(f"{_FACES}test_losing_it_does_not_hide_an_error"),),
    ),
    Mutant(
        "child-keeps-the-lease",
        "A forked child holds the lease of its dead parent.",
        Promise.LEASE,
        (Edit("jsonfile/lease", "        self._lock.after_fork_in_child()\n", "        pass\n"),),
        (suite("leases::TestLeases::test_a_forked_child_neither_has_nor_keeps_it", limit=50),),
    ),
    Mutant(
        "leases-counted-as-cycles",
        "The time for which a lease is held is counted as time for which the file is locked.",
        Promise.FAILURE,
        (
            Edit(
                "registry",
                "        super()._deliver(over, None, purpose)\n",
                "        super()._deliver(over, session, purpose)\n",
            ),
        ),
        (suite("lease::TestMetrics::test_leases_are_not_reported"),),
    ),
    Mutant(
        "a-thread-for-each-waiting-task",
        "Every task that waits for a lease occupies a thread.",
        Promise.LOOP,
        (
            Edit(
                "aio_calls",
                "        async with self._attaching:\n            await run_in_pool(link.find)\n",
                "        await run_in_pool(link.find)\n",
            ),
        ),
        (suite(f"{_TASKS}test_waiting_takes_no_thread_of_the_executor"),),
    ),
)
