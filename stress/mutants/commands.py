"""Builds whose command line loses an edited text, or a part of a value, or misleads its user."""

from __future__ import annotations

from typing import Final

from stress.mutants.model import Edit, Mutant, Promise, suite

COMMANDS: Final = (
    Mutant(
        "edited-text-removed",
        "An edited text that cannot be saved is removed.",
        Promise.LOST,
        (Edit("editing", "if kept := _differs(path, text):", "if _differs(path, text):"),),
        (suite("edit::TestTextsThatCannotBeSaved::test_it_says_why_and_keeps_them"),),
    ),
    Mutant(
        "edited-state-replaces",
        "Saving after editing stores the whole edited text, and discards what others have changed since.",
        Promise.CLOBBERED,
        (
            Edit(
                "editing",
                "            _change(context, edited)\n",
                "            context.load()\n            _change(context, edited)\n",
            ),
        ),
        (suite("edit::TestSaving::test_what_was_edited_is_saved_and_what_others_changed_is_kept"),),
    ),
    Mutant(
        "edit-overrules",
        "An edited value silently overwrites what another program has stored since.",
        Promise.CLOBBERED,
        (Edit("editing", "    ] = OnConflict.RAISE,\n", "    ] = OnConflict.MINE,\n"),),
        (suite("edit::TestConflicts::test_one_is_an_error_and_the_text_is_kept"),),
    ),
    Mutant(
        "edited-copy-readable",
        "Every user can read the copy of the state that is being edited.",
        Promise.ACCESS,
        (Edit("editing", "os.O_EXCL, 0o600)", "os.O_EXCL, 0o666)"),),
        (suite("edit::TestSaving::test_the_text_is_private_and_controls_nothing"),),
    ),
    Mutant(
        "edited-value-steers-the-terminal",
        "The text for the editor may contain characters that the editor's terminal obeys.",
        Promise.ACCESS,
        (Edit("jsontext", '    return "".join(f"{printable_json(line)}\\n"', '    return "".join(f"{line}\\n"'),),
        (suite("edit::TestSaving::test_the_text_is_private_and_controls_nothing"),),
    ),
    Mutant(
        "editor-loses-ctrl-c",
        "Ctrl-C in the editor ends the command that waits for it.",
        Promise.LOST,
        (Edit("editing", "signal.signal(number, lambda *_: None)", "signal.getsignal(number)"),),
        (suite("edit::TestSaving::test_ctrl_c_belongs_to_the_editor"),),
    ),
    Mutant(
        "value-loses-a-part",
        "If a key occurs twice in an object, one of the values is dropped.",
        Promise.FAILURE,
        (Edit("jsontext", "        if key in found:\n", "        if False:\n"),),
        (suite("changing::TestValuesThatLookLikeOptions::test_a_value_that_would_lose_a_part"),),
    ),
    Mutant(
        "restore-overwrites",
        "Keys of a restored copy overwrite newer ones.",
        Promise.CLOBBERED,
        (
            Edit(
                "writing",
                "        missing = [key for key in data if key not in tx]\n",
                "        missing = list(data)\n",
            ),
        ),
        (suite("changing::TestRestore::test_it_adds_what_is_missing"),),
    ),
    Mutant(
        "append-to-anything",
        "Appending to a value that is not a list fails with an error that explains nothing.",
        Promise.FAILURE,
        (Edit("updates", 'text is not MISSING and not text.startswith(b"[")', "False"),),
        (suite("changing::TestAppend::test_what_is_no_list"),),
    ),
    Mutant(
        "completion-offers-anything",
        "Completion offers keys that the shell splits or interprets.",
        Promise.ACCESS,
        (Edit("completion", " and _PLAIN.fullmatch(key))", ")"),),
        (suite("completion::TestKeys::test_those_that_a_shell_would_split_or_obey_are_not_offered"),),
    ),
    Mutant(
        "completion-talks",
        "A warning appears in the middle of the line that the user is typing.",
        Promise.FAILURE,
        (Edit("completion", "    logging.disable()", "    pass"),),
        (suite("completion::TestKeys::test_a_file_that_cannot_be_read_is_no_error"),),
    ),
    Mutant(
        "stopped-holder-unknown",
        "The status does not say that the holder of the lock is stopped.",
        Promise.STARVES,
        (Edit("process", '_STOPPED: Final = "T"', '_STOPPED: Final = "Z"'),),
        (suite("main::TestWho::test_it_says_that_the_holder_is_stopped"),),
    ),
    Mutant(
        "demo-leaves-processes",
        "A demonstration that is interrupted while it starts leaves processes behind.",
        Promise.CANCELLING,
        (
            Edit(
                "demo",
                "signal.signal(signal.SIGINT, lambda number, _: interrupts.append(number))",
                "signal.signal(signal.SIGINT, lambda *_: os._exit(130))",
            ),
        ),
        (suite("demo::TestDemo::test_ctrl_c_ends_it_quietly"),),
    ),
)
