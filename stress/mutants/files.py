"""Builds that write, replace, read or remove files wrongly."""

from __future__ import annotations

from typing import Final

from stress.mutants.model import Edit, Mutant, Promise, faults, suite

_SYNC_THE_FILE = "        if durable:\n            sync(fd)\n        check()"
_UNKNOWN = """\
    except BaseException as error:
        raise durability_unknown(path, "the file was replaced", error) from error
"""
_STEPS = suite("durability::TestTheOrderOfTheSteps")
_POWER = faults("--only power:xfs:save:async --point acknowledged:1")
_BROKEN_DISK = "durability::TestABrokenDisk::"
_AFTER_THE_RENAME = "durability::TestFailuresAfterTheRename::"

FILES: Final = (
    Mutant(
        "no-file-fsync",
        "The new file is not synced before it replaces the old one.",
        Promise.LOST,
        (Edit("atomic", _SYNC_THE_FILE, "        check()"),),
        (_STEPS, _POWER),
    ),
    Mutant(
        "no-directory-fsync",
        "A commit does not request a sync of the directory, so the old file may come back.",
        Promise.LOST,
        (Edit("jsonfile/session", "        if durable:\n            self._complete = make_name_durable\n", ""),),
        (_STEPS, _POWER),
    ),
    Mutant(
        "closed-without-syncing-the-directory",
        "A session is closed without the step that makes its commit durable: the directory is never synced.",
        Promise.LOST,
        (Edit("jsonfile/session", "        if complete is None:\n", "        if True:\n"),),
        (_STEPS, _POWER, suite("durability::TestADurableCallThatWritesNothing::test_it_syncs_what_it_found")),
    ),
    Mutant(
        "failed-release-leaves-the-directory-unsynced",
        "If an error occurs while the lock is released, the directory is not synced, but the call is acknowledged.",
        Promise.LOST,
        (
            Edit(
                "jsonfile/session",
                "                self._complete_now()  # even",
                "                sys.exc_info()[0] or self._complete_now()  # even",
            ),
        ),
        (suite("cycle::TestAcknowledging::test_an_error_while_the_lock_is_released_does_not_prevent_the_sync"),),
    ),
    Mutant(
        "failed-sync-of-another-kind-acknowledged",
        "If the directory cannot be synced for lack of memory, the call is acknowledged all the same.",
        Promise.LOST,
        (
            Edit(
                "syncing",
                _UNKNOWN,
                _UNKNOWN.replace("BaseException", "OSError"),
            ),
        ),
        (suite(_AFTER_THE_RENAME + "test_whatever_fails_after_the_replacing_leaves_durability_unknown"),),
    ),
    Mutant(
        "fsync-after-rename",
        "The new file is synced only after it has replaced the old one.",
        Promise.LOST,
        (
            Edit("atomic", _SYNC_THE_FILE, "        check()"),
            Edit(
                "atomic",
                "        _rename(temporary, path)\n",
                "        _rename(temporary, path)\n        if durable:\n            sync(fd)\n",
            ),
        ),
        (_STEPS,),
    ),
    Mutant(
        "new-directories-unsynced",
        "A directory that was made for the file may be lost in a power loss.",
        Promise.LOST,
        (Edit("syncing", "        _sync_parent(os.path.dirname(directory))\n", ""),),
        (_STEPS,),
    ),
    Mutant(
        "failed-fsync-retried",
        "A failed sync is tried again on the same file, where the kernel wrongly reports success.",
        Promise.LOST,
        (
            Edit(
                "syncing",
                "        os.fsync(fd)\n",
                "        try:\n            os.fsync(fd)\n        except OSError:\n            os.fsync(fd)\n",
            ),
        ),
        (suite("durability::TestSyncing::test_a_failed_sync_is_not_tried_again"),),
    ),
    Mutant(
        "written-in-place",
        "The old file is overwritten in place, so that readers see half of the new one.",
        Promise.TORN,
        (
            Edit(
                "atomic",
                "            os.replace(source, target)\n",
                '            with open(source, "rb") as new, open(target, "wb") as old:\n'
                "                old.write(new.read())\n"
                "            os.unlink(source)\n",
            ),
        ),
        (
            suite("durability::TestTheOrderOfTheSteps"),
            suite("processes::TestNothingIsTorn::test_a_reader_never_sees_half_a_document"),
        ),
    ),
    Mutant(
        "short-write-taken-for-whole",
        "A short write is taken for a complete one.",
        Promise.TORN,
        (
            Edit(
                "atomic",
                "            rest = rest[os.write(fd, rest) :]\n",
                "            os.write(fd, rest)\n            rest = rest[len(rest) :]\n",
            ),
        ),
        (suite("write_faults::TestRealLimits::test_a_limit_on_the_size_of_files[4096-transaction-async]"),),
    ),
    Mutant(
        "corrupt-file-overwritten",
        "A file that is not a JSON object is overwritten instead of moved aside.",
        Promise.CLOBBERED,
        (
            Edit(
                "jsonfile/session",
                "                aside = move_aside(path, durable=True)\n",
                "                aside = path\n",
            ),
        ),
        (suite("bad_documents::TestADocumentThatWentBadUnderUs::test_save_writes_all_of_memory"),),
    ),
    Mutant(
        "no-second-look",
        "A file that another program is just rewriting in place is moved aside at the first look.",
        Promise.CLOBBERED,
        (Edit("jsonfile/file", "_LOOKS: Final = 5", "_LOOKS: Final = 0"),),
        (suite("store::TestReading::test_a_file_that_is_finished_between_two_looks_is_taken"),),
    ),
    Mutant(
        "repeated-keys-not-kept",
        "A file that repeats keys is overwritten without a copy of the original.",
        Promise.CLOBBERED,
        (Edit("jsonfile/session", "            if self.snapshot.repeats:\n", "            if False:\n"),),
        (suite("readable_documents::TestDuplicateKeys::test_the_original_is_kept_aside_when_it_is_overwritten"),),
    ),
    Mutant(
        "symlink-replaced",
        "A symbolic link is replaced by a file, and its target is not changed.",
        Promise.CLOBBERED,
        (Edit("factory", "    return os.path.realpath(place)\n", "    return os.path.abspath(place)\n"),),
        (suite("place::TestLinks::test_the_link_stays_and_its_target_is_written"),),
    ),
    Mutant(
        "leftovers-stay",
        "The temporary files of killed writers are never removed.",
        Promise.CLOBBERED,
        (
            Edit(
                "jsonfile/store",
                "                for leftover in itertools.chain.from_iterable(map(remove_leftovers, self._replaced)):",
                "                for leftover in ():",
            ),
        ),
        (suite("names::TestTemporaries::test_one_that_a_killed_writer_left_is_removed"),),
    ),
    Mutant(
        "living-writer-s-temporary-removed",
        "A temporary file is removed although its writer is alive.",
        Promise.LOST,
        (
            Edit(
                "names",
                "S_ISREG(os.fstat(fd).st_mode) and try_lock(fd):",
                "S_ISREG(os.fstat(fd).st_mode):",
            ),
        ),
        (suite("names::TestTemporaries::test_one_whose_writer_lives_stays"),),
    ),
    Mutant(
        "temporary-not-locked",
        "A writer does not lock its temporary file, so that others take it for a leftover.",
        Promise.LOST,
        (Edit("atomic", "        try_lock(fd)  # marks", "        # marks"),),
        (suite("names::TestTemporaries::test_one_whose_writer_lives_stays"),),
    ),
    Mutant(
        "fixed-temporary-name",
        "The temporary file always has the same name, under which other users can plant a file.",
        Promise.ACCESS,
        (Edit("names", "os.urandom(8).hex()", "bytes(8).hex()"),),
        (suite("planted_files::TestTemporaryFiles::test_names_are_random_and_short_lived"),),
    ),
    Mutant(
        "no-o-excl",
        "The temporary file is opened although a file of that name exists.",
        Promise.ACCESS,
        (
            Edit(
                "atomic",
                "os.O_CREAT | os.O_EXCL | NO_FOLLOW, mode)",
                "os.O_CREAT | NO_FOLLOW, mode)",
            ),
        ),
        (suite("names::TestTemporaries::test_a_planted_one_is_not_used"),),
    ),
    Mutant(
        "mode-not-kept",
        "The new file does not get the access rights of the old one.",
        Promise.ACCESS,
        (Edit("atomic", "            access.give_to(fd, os.fstat(fd))\n", "            pass\n"),),
        (suite("access::TestModes::test_the_mode_of_a_file_is_kept"),),
    ),
    Mutant(
        "planted-link-followed",
        "A link that another user puts in place of the file is followed: what it leads to is read, and given away.",
        Promise.ACCESS,
        (Edit("opening", "os.O_RDONLY | NO_FOLLOW | NO_WAIT", "os.O_RDONLY | NO_WAIT"),),
        (
            suite("copies::TestACopy::test_a_link_is_not_copied"),
            suite("place::TestLinks::test_one_that_took_the_place_of_the_file_before_it_is_read"),
        ),
    ),
    Mutant(
        "copy-of-two-files",
        "A copy has the content of the file, and the permissions of another one that has taken its name.",
        Promise.ACCESS,
        (
            Edit("copies", "temporary_name(path), aside, durable", "path, aside, durable"),
            Edit("copies", "temporary: str, target", "path: str, target"),
            Edit(
                "copies",
                "    fd = open_fd(temporary, ",
                "    temporary = temporary_name(path)\n    fd = open_fd(temporary, ",
            ),
            Edit("copies", "Access.of_open(original.fd).give_to(", "Access.of(path).give_to("),
        ),
        (suite("copies::TestACopy::test_it_is_of_one_file_whatever_takes_its_name"),),
    ),
    Mutant(
        "access-of-another-file",
        "What was read from a file is written with the permissions of another one that has taken its place.",
        Promise.ACCESS,
        (Edit("jsonfile/session", "Access.of(self._file.path, self._old)", "Access.of(self._file.path)"),),
        (suite("access::TestAFileThatIsReplacedWhenItHasBeenRead"),),
    ),
    Mutant(
        "moved-aside-and-forgotten",
        "A private file that is corrupt is moved aside, and the one that takes its place is public.",
        Promise.ACCESS,
        (Edit("jsonfile/session", "            self.succeed(Access.of(path))\n", ""),),
        (suite("access::TestModes::test_those_of_a_corrupt_file_are_kept"),),
    ),
    Mutant(
        "temporary-open-to-all",
        "For a moment, the temporary file can be read by more users than the file that it will replace.",
        Promise.ACCESS,
        (Edit("atomic", "mode = 0o666 if access is None else 0o600  # widened", "mode = 0o666  # widened"),),
        (suite("names::TestTemporaries::test_one_is_never_open_to_more_users_than_the_file"),),
    ),
    Mutant(
        "group-of-the-writer-let-in",
        "If the file's group cannot be set, the writer's own group gets the group's rights.",
        Promise.ACCESS,
        (Edit("access", "        mode &= ~0o070 | (mode & 0o007) << 3", "        mode &= 0o777"),),
        (suite("bad_places::TestRights::test_a_file_of_a_group_one_is_not_in"),),
    ),
    Mutant(
        "durability-unknown-told-as-plain-error",
        "A failure after the file was replaced is raised as if nothing had been written.",
        Promise.FAILURE,
        (
            Edit(
                "atomic",
                '        raise durability_unknown(path, "the file was replaced", error) from error\n',
                "        raise\n",
            ),
        ),
        (suite(_AFTER_THE_RENAME + "test_a_descriptor_that_cannot_be_closed_leaves_durability_unknown"),),
    ),
    Mutant(
        "temporary-left-by-a-failed-write",
        "A failed write leaves its temporary file behind.",
        Promise.FAILURE,
        (Edit("atomic", "                os.unlink(temporary)\n", "                pass\n"),),
        (suite(_BROKEN_DISK + "test_an_unsynced_file_does_not_replace_the_old_one"),),
    ),
    Mutant(
        "no-reread",
        "A change is applied to the process's last view of the file, which is not read again under the lock.",
        Promise.LOST,
        (
            Edit(
                "jsonfile/session",
                "            self._document, self._old = self._file.read_finished()\n",
                "            known = self._file._known\n"
                "            found = (known, None) if known.exists else self._file.read_finished()\n"
                "            self._document, self._old = found\n",
            ),
        ),
        (suite("merge::TestMerging::test_changes_of_a_program_without_this_library_are_merged"),),
    ),
    Mutant(
        "replaced-file-stays-open",
        "The replaced file is never closed: its disk space stays taken, and descriptors run out.",
        Promise.FAILURE,
        (
            Edit(
                "jsonfile/session",
                "        if old is not None:\n            os.close(old.fd)\n\n    def _keep(",
                "\n    def _keep(",
            ),
        ),
        (suite("syncing::TestTheReplacedFile::test_it_is_freed_when_the_call_is_over"),),
    ),
)
