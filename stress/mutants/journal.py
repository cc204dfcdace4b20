"""Builds whose journal loses acknowledged changes, shows others, or accepts files of strangers."""

from __future__ import annotations

from typing import Final

from stress.mutants.model import Edit, Mutant, Promise, suite

_TAIL = "journal_torn_tails::TestTheTail::"
_DAMAGE = "journal_torn_tails::TestDamage::"
_COMMIT = "journal_session::TestACommit::"
_FAILED = "journal_session::TestAFailedSync::"
_CRASH = "journal_journal::TestACrashInACheckpoint::"
_FOREIGN = "journal_journal::TestForeignPrograms::"
_DELETED = "journal_journal::TestADeletedJournal::"
_OPENING = "journal_file::TestOpening::"

JOURNAL: Final = (
    Mutant(
        "journal-checksum-not-compared",
        "A line of the journal is applied whatever its checksum says.",
        Promise.TORN,
        (
            Edit(
                "record",
                'if checksum != b"%08x" % zlib.crc32(memoryview(line)[len(checksum) + 1 :]) or length',
                "if length",
            ),
        ),
        (suite("journal_record::TestWhatIsDamaged::test_every_changed_byte_is_noticed"),),
    ),
    Mutant(
        "journal-generation-not-compared",
        "A line of an older journal is applied to a newer one.",
        Promise.LOST,
        (Edit("record", "    if frame is None or frame[0] != generation.encode():\n", "    if frame is None:\n"),),
        (suite("journal_record::TestWhatIsDamaged::test_a_line_of_another_generation_is_none_of_this_one"),),
    ),
    Mutant(
        "journal-numbers-of-another-generation",
        "Line numbers of different journals are compared to find what has changed, so a watcher misses a change.",
        Promise.MEMORY,
        (Edit("journal/snapshot", " and older.generation == self.generation:", ":"),),
        (suite("journal_snapshot::TestChanges::test_the_numbers_of_another_generation_mean_nothing"),),
    ),
    Mutant(
        "journal-repeated-line-applied",
        "A line that repeats an earlier number is applied again.",
        Promise.LOST,
        (Edit("journal/state", "            if line is None or number <= last:", "            if line is None:"),),
        (suite(_DAMAGE + "test_stale_lines_are_not_applied"),),
    ),
    Mutant(
        "journal-tail-not-cut",
        "An append leaves the rest of an interrupted one in front of it.",
        Promise.LOST,
        (Edit("journal/file", "        if self.size() > end:\n            os.ftruncate(self.fd, end)\n", ""),),
        (suite(_TAIL + "test_an_append_behind_a_torn_tail_is_not_lost"),),
    ),
    Mutant(
        "journal-failed-append-stays",
        "What a failed append has written stays at the end of the journal.",
        Promise.FAILURE,
        (
            Edit(
                "journal/file",
                "        except BaseException:\n            os.ftruncate(self.fd, end)\n            raise\n",
                "        except BaseException:\n            raise\n",
            ),
        ),
        (suite("journal_torn_tails::TestAFailedAppend::test_a_full_disk_leaves_nothing"),),
    ),
    Mutant(
        "journal-acknowledged-unsynced",
        "A durable call returns before its append is synced.",
        Promise.LOST,
        (Edit("journal/session", "                self._unsynced = state\n", "                pass\n"),),
        (suite(_COMMIT + "test_it_appends_one_record_and_syncs_it"),),
    ),
    Mutant(
        "journal-synced-under-the-lock",
        "The journal is synced before the lock is released, so all processes wait for the disk one after the other.",
        Promise.STARVES,
        (
            Edit(
                "journal/session",
                "                self._unsynced = state\n",
                "                self._sync(state)\n",
            ),
        ),
        (suite(_COMMIT + "test_it_syncs_after_the_lock_is_released"),),
    ),
    Mutant(
        "journal-failed-sync-tried-again",
        "After a failed sync of the journal, a later successful one is taken to cover it.",
        Promise.LOST,
        (
            Edit(
                "journal/journal",
                "        return state.generation in _distrusted\n",
                "        return False\n",
            ),
        ),
        (suite(_FAILED + "test_it_is_raised_and_never_tried_again"),),
    ),
    Mutant(
        "journal-failed-sync-forgotten-with-its-store",
        "That a sync of the journal has failed is forgotten together with the contexts, and the next sync is believed.",
        Promise.LOST,
        (
            Edit(
                "journal/journal",
                "        self.wanted: bool | None = None\n",
                "        self.wanted: bool | None = None\n        _distrusted.clear()\n",
            ),
        ),
        (suite(_FAILED + "test_it_is_remembered"),),
    ),
    Mutant(
        "journal-succeeded-before-the-file-is-durable",
        "A new journal is begun before the new JSON file's name would survive a power loss.",
        Promise.LOST,
        (
            Edit(
                "jsonfile/session",
                "            self._complete = make_durable\n        self._complete_now()\n",
                "            self._complete = make_durable\n",
            ),
        ),
        (suite(_COMMIT + "test_a_checkpoint_takes_its_steps_in_order"),),
    ),
    Mutant(
        "journal-fold-not-announced",
        "A crash between the two renames of a checkpoint is taken for a change by another program.",
        Promise.LOST,
        (
            Edit(
                "journal/session",
                "                announced = journal.announce_fold(state, author, becomes, ends=ends)\n",
                "                announced = True\n",
            ),
        ),
        (suite(_CRASH + "test_it_is_harmless"),),
    ),
    Mutant(
        "journal-appends-meanwhile-dropped",
        "A session continues from what this process knows, and ignores what others have appended since.",
        Promise.LOST,
        (
            Edit(
                "journal/journal",
                "            return known.on(look(self.data_path, known.base, read_document)).extended()\n",
                "            return known.on(look(self.data_path, known.base, read_document))\n",
            ),
        ),
        (suite("journal_journal::TestManyProcesses::test_checkpoints_beside_concurrent_appends_lose_nothing"),),
    ),
    Mutant(
        "journal-reader-mixes-two-generations",
        "A reader without the lock combines the JSON file of one checkpoint with the journal of another.",
        Promise.TORN,
        (Edit("journal/store", "            if not state.file.is_at_path():", "            if False:"),),
        (suite("journal_store::TestReading::test_it_is_repeated_if_the_journal_is_replaced_meanwhile"),),
    ),
    Mutant(
        "journal-deleted-under-the-lock",
        "A call appends to a journal that was deleted or replaced.",
        Promise.LOST,
        (Edit("journal/session", "        if not state.file.is_at_path():\n", "        if False:\n"),),
        (suite(_COMMIT + "test_a_journal_that_goes_under_the_lock_is_noticed_before_the_append"),),
    ),
    Mutant(
        "journal-deleted-and-forgotten",
        "A process that has a deleted journal open discards the changes in it.",
        Promise.LOST,
        (Edit("journal/journal", "        if file is None and is_left:\n", "        if False:\n"),),
        (suite(_DELETED + "test_acknowledged_changes_stay_for_a_process_that_has_it_open"),),
    ),
    Mutant(
        "journal-written-back-after-a-reset",
        "A process that knew a journal writes it back after all files were deleted and created anew.",
        Promise.CLOBBERED,
        (Edit("journal/journal", "        if file is None and is_left:\n", "        if file is None:\n"),),
        (suite(_DELETED + "test_nor_if_it_was_not_looked_at_meanwhile"),),
    ),
    Mutant(
        "journal-ended-and-restored",
        "A process that knew a journal writes it back after another process has ended it.",
        Promise.CLOBBERED,
        (
            Edit(
                "journal/state",
                "        is_done = self.folds[-1].becomes == base.fingerprint\n",
                "        is_done = False\n",
            ),
        ),
        (suite(_DELETED + "test_a_writer_notices_the_end_of_one_without_records"),),
    ),
    Mutant(
        "journal-deleted-and-forgotten-after-a-chmod",
        "The changes in a deleted journal are discarded if the JSON file has got other permissions, times or links.",
        Promise.LOST,
        (
            Edit(
                "journal/base",
                "        return self.fingerprint == later.fingerprint and before == after\n",
                "        return self.fingerprint == later.fingerprint and self.identity == later.identity\n",
            ),
        ),
        (suite(_DELETED + "test_they_stay_if_the_json_file_has_other_times_and_permissions"),),
    ),
    Mutant(
        "journal-announced-taken-for-folded",
        "A checkpoint that was announced, but failed, is taken for one that has been made when the journal is gone.",
        Promise.LOST,
        (
            Edit(
                "journal/state",
                "        return self.fault is None and not is_done and self.base.is_still(base, unmodified=True)\n",
                "        return False\n",
            ),
        ),
        (suite(_DELETED + "test_they_stay_if_a_checkpoint_was_announced_and_never_made"),),
    ),
    Mutant(
        "journal-end-hides-the-commit",
        "A session after the end of a journal shows the state before its commit.",
        Promise.MEMORY,
        (
            Edit(
                "journal/session",
                "            self._snapshot, self.bytes_written = self._plain.snapshot, self._plain.bytes_written\n",
                "            self.bytes_written = self._plain.bytes_written\n",
            ),
        ),
        (suite(_COMMIT + "test_one_after_the_journal_was_ended_is_seen"),),
    ),
    Mutant(
        "journal-foreign-content-not-kept",
        "A file that another program has put in place of the JSON file is overwritten without a copy.",
        Promise.CLOBBERED,
        (
            Edit(
                "journal/session",
                "        if not state.is_replaced or not state.snapshot.overlay:\n",
                "        if True:\n",
            ),
        ),
        (suite(_FOREIGN + "test_their_other_keys_are_taken_over"),),
    ),
    Mutant(
        "journal-trusts-times",
        "The JSON file is taken for unchanged although it was written within the same tick of the clock.",
        Promise.CLOBBERED,
        (Edit("_stores/journal/base", "known is not None and known.is_settled and", "known is not None and"),),
        (suite("journal_base::TestLooking::test_a_write_that_the_clock_cannot_tell_is_noticed"),),
    ),
    Mutant(
        "journal-writes-into-a-strangers-file",
        "A journal whose descriptor was closed is written to, whatever file the descriptor now refers to.",
        Promise.CLOBBERED,
        (Edit("journal/journal", "not known.file.has_its_descriptor()", "False"),),
        (suite("journal_file::TestTheOpenFile::test_a_descriptor_that_was_closed_is_left_to_its_new_owner"),),
    ),
    Mutant(
        "journal-of-a-stranger",
        "A journal is read although it was made by a user who may not write the JSON file.",
        Promise.ACCESS,
        (
            Edit(
                "journal/file",
                "bool(file.st_mode & stat.S_IWGRP) and file.st_gid in groups",
                "bool(file.st_mode & stat.S_IWGRP)",
            ),
        ),
        (suite(_OPENING + "test_nor_does_one_of_another_group_than_that_which_may_write_it"),),
    ),
    Mutant(
        "journal-of-a-stranger-in-a-setgid-directory",
        "A journal is read because of its group, which the directory gives to the files of all users.",
        Promise.ACCESS,
        (Edit("journal/file", "    mode = os.stat(directory).st_mode\n", "    mode = 0\n"),),
        (suite(_OPENING + "test_a_group_that_the_directory_gives_to_all_files_shows_nothing"),),
    ),
    Mutant(
        "journal-of-a-listed-user-refused",
        "A journal is refused although the access list of the JSON file lets its owner write it.",
        Promise.FAILURE,
        (
            Edit(
                "journal/file",
                "        return lets_write(data.acl, journal.st_uid, groups, file.st_gid)\n",
                "        return False\n",
            ),
        ),
        (suite(_OPENING + "test_one_of_a_user_whom_an_access_list_lets_write_is_trusted"),),
    ),
    Mutant(
        "journal-of-a-missing-file-made-public",
        "A JSON file that a checkpoint creates again is open to more users than its journal.",
        Promise.ACCESS,
        (
            Edit(
                "journal/session",
                "            plain.succeed(Access.of_open(state.file.fd))",
                "            pass",
            ),
        ),
        (suite("journal_file::TestPermissions::test_a_json_file_that_is_gone_leaves_them_to_the_next"),),
    ),
    Mutant(
        "journal-not-folded-at-exit",
        "What a process appends just before it ends stays out of the JSON file.",
        Promise.MEMORY,
        (Edit("idle", "            _tried(fold, at_exit=True)\n", "            _tried(fold, at_exit=False)\n"),),
        (suite("journal_idle::TestTheExit::test_it_folds"),),
    ),
    Mutant(
        "journal-deleted-and-only-read",
        "A process that has only read a journal keeps its changes to itself after it was deleted.",
        Promise.LOST,
        (Edit("journal/store", "                self._save_deleted(state)\n", ""),),
        (suite("journal_idle::TestTheStore::test_a_reader_of_a_deleted_journal_writes_its_changes"),),
    ),
    Mutant(
        "journal-saved-taken-for-lost",
        "A loss is reported although another process has written the changes in a deleted journal into the JSON file.",
        Promise.FAILURE,
        (Edit("journal/journal", " or known.is_contained_in(base.document))\n", ")\n"),),
        (suite(_DELETED + "test_no_loss_is_reported_after_another_process_has_saved_the_changes"),),
    ),
    Mutant(
        "journal-exit-in-a-fold",
        "A process that exits while its own thread folds the journal abandons it halfway.",
        Promise.MEMORY,
        (Edit("idle", "acquire(timeout=_EXIT_SECONDS)", "acquire(timeout=0)"),),
        (suite("journal_idle::TestTheExit::test_it_waits_for_the_thread_that_is_just_folding"),),
    ),
    Mutant(
        "journal-failed-fold-given-up",
        "A journal that could not be folded once is not folded by the exit of the process either.",
        Promise.MEMORY,
        (Edit("idle", "        if is_done:  #", "        if True:  #"),),
        (suite("journal_idle::TestTheExit::test_it_makes_up_for_an_error"),),
    ),
    Mutant(
        "journal-descriptor-trusted-when-idle",
        "A journal whose descriptor the program has closed is not folded.",
        Promise.MEMORY,
        (
            Edit(
                "journal/store",
                "        if known is not None and not known.file.has_its_descriptor():",
                "        if False:",
            ),
        ),
        (suite("journal_idle::TestTheStore::test_one_whose_descriptor_was_closed_opens_it_again"),),
    ),
    Mutant(
        "journal-deleted-taken-for-folded",
        "A process whose journal was deleted while it was idle takes it for one that another process has folded.",
        Promise.LOST,
        (Edit("journal/store", "(known.file.is_at_path() or self._was_deleted(known))", "known.file.is_at_path()"),),
        (suite("journal_idle::TestTheStore::test_one_whose_journal_was_deleted_writes_its_changes"),),
    ),
    Mutant(
        "journal-damaged-kept-as-a-link",
        "What is kept of a damaged journal is a link to it, which the next append cuts off and overwrites.",
        Promise.CLOBBERED,
        (
            Edit(
                "copies",
                "            _copy(original, temporary_name(path), aside, durable=durable)\n",
                "            os.link(path, aside)\n",
            ),
        ),
        (suite("journal_torn_tails::TestDamage::test_a_bad_line_at_the_end_is_kept_as_well"),),
    ),
    Mutant(
        "journal-appended-to-in-a-backup",
        "A journal with a second name, in a backup made of hard links, is appended to, so the backup changes.",
        Promise.CLOBBERED,
        (Edit("journal/session", "        if state.file.is_linked:", "        if False:"),),
        (suite("journal_journal::TestABackupOfLinks::test_it_does_not_change"),),
    ),
    Mutant(
        "journal-name-left-to-others",
        "An appending process leaves the sync of the journal's name to the process that created it, which may be dead.",
        Promise.LOST,
        (Edit("journal/file", "        if not self.name_is_durable:\n", "        if False:\n"),),
        (suite(_COMMIT + "test_the_first_one_on_the_journal_of_another_process_syncs_its_name"),),
    ),
    Mutant(
        "journal-overlooked-after-an-error",
        "An error in looking for the journal is taken for its absence.",
        Promise.CLOBBERED,
        (
            Edit(
                "journal/file",
                "        if error.errno != errno.ENAMETOOLONG:\n            raise\n        return False\n",
                "        return False\n",
            ),
        ),
        (suite("journal_file::TestWhetherItExists::test_other_errors_are_raised"),),
    ),
    Mutant(
        "journal-read-only-for-ever",
        "A journal that could not be opened for writing once is never opened again.",
        Promise.FAILURE,
        (Edit("journal/journal", "if known is not None and not known.file.writable:", "if False:"),),
        (suite("journal_torn_tails::TestAFailedAppend::test_a_writer_without_permission_gets_an_error"),),
    ),
    Mutant(
        "journal-temporaries-stay",
        "The unfinished new journal of a killed writer is never removed.",
        Promise.FAILURE,
        (Edit("journal/store", 'JsonFileStore(path, also=(f"{path}.journal",))', "JsonFileStore(path)"),),
        (suite("journal_store::TestLeftovers::test_the_next_writer_removes_those_of_a_journal"),),
    ),
    Mutant(
        "journal-damage-in-passing-is-kept",
        "A journal that only looked damaged to a reader during appends is folded without the lines it missed.",
        Promise.LOST,
        (Edit("journal/store", "            if not state.is_damaged:\n", "            if True:\n"),),
        (suite("journal_torn_tails::TestWhatLooksDamaged::test_a_reader_in_the_midst_of_appends_is_not_misled"),),
    ),
    Mutant(
        "journal-trimmed-overlay-on-an-older-file",
        "A reader that has dropped the folded lines ignores that an older JSON file was put back.",
        Promise.LOST,
        (Edit("journal/state", "        if self.folded_number is not None:  # then", "        if False:  # then"),),
        (suite(_CRASH + "test_a_reader_of_it_does_not_forget_what_was_folded"),),
    ),
    Mutant(
        "journal-not-renewed-and-acknowledged",
        "A call is acknowledged although the old journal may be taken for newer than the JSON file.",
        Promise.LOST,
        (Edit("journal/journal", "            if not announced:\n", "            if False:\n"),),
        (
            suite(
                "journal_journal::TestAJournalThatCannotBeMade::test_it_is_not_acknowledged_if_the_old_one_knows_nothing_of_it"
            ),
        ),
    ),
    Mutant(
        "journal-wish-in-a-fold-forgotten",
        "The journal option of a context that is opened while another one folds the journal is ignored.",
        Promise.MEMORY,
        (Edit("journal/session", "        if is_done and journal.wanted is wanted:  #", "        if is_done:  #"),),
        (suite(_CRASH + "test_a_setting_changed_during_it_is_kept"),),
    ),
)
