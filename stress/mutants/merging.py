"""Builds that merge values wrongly, or take over wrongly what others wrote."""

from __future__ import annotations

from typing import Final

from stress.mutants.model import Edit, Mutant, Promise, suite

MERGING: Final = (
    Mutant(
        "objects-not-merged",
        "Two contexts that add members to the same object overwrite each other.",
        Promise.CLOBBERED,
        (Edit("nested", "        is_inside = _is_object(node.mine) and", "        is_inside = False and"),),
        (suite("merge::TestInsideValues::test_both_fill_an_object"),),
    ),
    Mutant(
        "appended-lists-not-joined",
        "Two contexts that append to the same list overwrite each other.",
        Promise.CLOBBERED,
        (Edit("nested", "(joined := self._joined(base, mine, theirs)) is not None", "(joined := None)"),),
        (suite("merge::TestInsideValues::test_both_append"),),
    ),
    Mutant(
        "equal-items-taken-for-one",
        "If two contexts append equal items, one of the items is lost.",
        Promise.LOST,
        (
            Edit(
                "nested",
                "        if (joined := self._joined(base, mine, theirs)) is not None:\n",
                "        if same(mine, theirs):\n            return mine\n"
                "        if (joined := self._joined(base, mine, theirs)) is not None:\n",
            ),
        ),
        (suite("merge::TestInsideValues::test_equal_items_are_two_items"),),
    ),
    Mutant(
        "equal-lists-taken-for-saved",
        "If the file has the same list as memory because others appended equal items, memory's own are lost.",
        Promise.LOST,
        (Edit("keys", "        if not same(merged, text):\n            return False\n", ""),),
        (suite("merge::TestInsideValues::test_equal_items_stay_two_after_a_refresh"),),
    ),
    Mutant(
        "lists-that-shrank-joined",
        "Items that one side has removed from a list come back.",
        Promise.CLOBBERED,
        (Edit("nested", "(self._theirs_has_mine or _begins(others, before))", "True"),),
        (suite("nested::TestRules::test_a_conflict_has_the_side_that_is_preferred[their list shrank]"),),
    ),
    Mutant(
        "my-removal-from-a-list-forgotten",
        "Items that this side has removed from a list come back.",
        Promise.CLOBBERED,
        (Edit("nested", "not _begins(ours, before) or ", ""),),
        (suite("nested::TestRules::test_a_conflict_has_the_side_that_is_preferred[a list that shrank]"),),
    ),
    Mutant(
        "my-items-come-first",
        "A merged list has this side's items before the other side's, which changes the indices that others use.",
        Promise.CLOBBERED,
        (
            Edit("nested", "for side in (theirs, mine)]", "for side in (mine, theirs)]"),
            Edit("nested", "compose(others + ours[len(before) :])", "compose(ours + others[len(before) :])"),
        ),
        (suite("nested::TestRules::test_nothing_is_lost[lists that grew]"),),
    ),
    Mutant(
        "lists-that-both-began-in-conflict",
        "If two contexts begin the same list, one loses its items.",
        Promise.LOST,
        (Edit("nested", "and (base is MISSING or _is_array(base))", "and _is_array(base)"),),
        (suite("merge::TestInsideValues::test_both_begin_an_object_and_a_list"),),
    ),
    Mutant(
        "lists-that-both-began-alike-doubled",
        "If two contexts begin a list with the same items, it gets them twice.",
        Promise.CLOBBERED,
        (Edit("nested", "        if base is MISSING and same(mine, theirs):\n", "        if False:\n"),),
        (suite("nested::TestRules::test_nothing_is_lost[lists that both began alike]"),),
    ),
    Mutant(
        "deletions-inside-undone",
        "A member that was deleted on one side stays.",
        Promise.LOST,
        (Edit("nested", "others if ours == start else ours", "others if ours == start else ours or others"),),
        (suite("merge::TestInsideValues::test_one_deletes_where_the_other_adds"),),
    ),
    Mutant(
        "theirs-settled-as-mine",
        'on_conflict="theirs" keeps this side inside values.',
        Promise.CLOBBERED,
        (Edit("nested", "mine if self._prefer_mine else theirs", "mine"),),
        (suite("merge::TestPlaces::test_a_policy_settles_places"),),
    ),
    Mutant(
        "conflicts-not-counted",
        "statistics() does not report conflicts.",
        Promise.FAILURE,
        (Edit("counts", "self._conflicts += len(request.operation.conflicts)", "pass"),),
        (suite("merge::TestPlaces::test_they_are_counted_and_logged"),),
    ),
    Mutant(
        "conflicts-not-logged",
        "A conflict is settled silently.",
        Promise.FAILURE,
        (Edit("cycle", "            _log_conflicts(request.operation.conflicts, name)\n", "            pass\n"),),
        (suite("merge::TestPlaces::test_they_are_counted_and_logged"),),
    ),
    Mutant(
        "resolver-asked-for-places",
        "A function for on_conflict is not asked about conflicts inside values.",
        Promise.CLOBBERED,
        (
            Edit(
                "merge",
                "elif both.conflicts and callable(policy):",
                "elif both.conflicts and callable(policy) and len(both.conflicts[0].path) == 1:",
            ),
        ),
        (suite("merge::TestPlaces::test_a_function_is_asked_for_the_whole_key"),),
    ),
    Mutant(
        "second-save-undoes-the-merge-of-the-first",
        "A save made before the outcome of another is known removes what the other one has merged.",
        Promise.CLOBBERED,
        (Edit("draft", "change.mine if is_set else resume(included, change.mine, own.text, key)", "change.mine"),),
        (suite("interleavings::test_what_grows_under_every_schedule", limit=90),),
    ),
    Mutant(
        "merge-lost-in-memory",
        "If memory was changed during a save, what the save merged is missing there, and the next save removes it.",
        Promise.CLOBBERED,
        (
            Edit(
                "keys",
                "        base = text if is_own else rebase(touched.base, mine, text, key)[1]\n",
                "        base, merged = text, mine\n",
            ),
        ),
        (suite("interleavings::test_what_grows_under_every_schedule", limit=90),),
    ),
    Mutant(
        "calls-in-flight-not-moved",
        "Changes that a call in flight includes are compared with a value that others' changes were merged into.",
        Promise.CLOBBERED,
        (Edit("keys", "also=(*self._noting(key, sent=sent), done)", "also=(done,)"),),
        (
            suite(
                "interleavings::test_what_grows_under_every_schedule",
                "interleavings::test_random_programs_in_which_everything_grows",
                limit=90,
            ),
        ),
    ),
    Mutant(
        "late-outcome-counted-twice",
        "List items that were there when a call was sent are appended again to the outcome of that call.",
        Promise.CLOBBERED,
        (Edit("draft", "change.sent.get(own.moment, change.base) if is_included else change.base", "change.base"),),
        (suite("interleavings::test_what_grows_under_every_schedule", limit=90),),
    ),
    Mutant(
        "references-go-stale",
        "A merge replaces a list in memory by a new object, so what the program appends to the old one is lost.",
        Promise.LOST,
        (Edit("grafting", "    if container(old) is None or container(old) is not type(new):\n", "    if True:\n"),),
        (suite("merge::TestInsideValues::test_references_show_what_others_added"),),
    ),
    Mutant(
        "items-exchange-their-objects",
        "A merge turns an item of a list into another item while the program has a reference to it.",
        Promise.MEMORY,
        (
            Edit(
                "grafting",
                "twins.pop() if container(item) and (twins := known.get(canonical(item))) else item",
                "item",
            ),
        ),
        (suite("merge::TestInsideValues::test_items_that_are_equal_stay_the_same_objects"),),
    ),
    Mutant(
        "counters-go-stale",
        "A merge replaces a Counter in memory by a plain dictionary, so what is counted in the old one is lost.",
        Promise.LOST,
        (Edit("grafting", "        if issubclass(kind, base) and", "        if False and"),),
        (suite("grafting::TestSubclasses::test_they_stay_the_same_objects"),),
    ),
    Mutant(
        "change-in-two-places",
        "What others change in one place is changed, and saved, in another place that has the same object.",
        Promise.CLOBBERED,
        (Edit("grafting", " and id(known) not in met:", ":"),),
        (suite("grafting::TestOneObjectInTwoPlaces::test_each_place_has_its_own_value"),),
    ),
    Mutant(
        "change-inside-an-element",
        "What others change in one place is changed, and saved, in the element of a list that has the same object.",
        Promise.CLOBBERED,
        (Edit("grafting", " and not _has_any(item, changed):", ":"),),
        (suite("grafting::TestOneObjectInTwoPlaces::test_inside_an_element_of_a_list"),),
    ),
    Mutant(
        "bad-value-forgets-its-base",
        "After a value that JSON cannot hold is corrected, saving it deletes what others wrote meanwhile.",
        Promise.CLOBBERED,
        (
            Edit(
                "keys",
                "            if change := self._reference(key, write):\n"
                "                self._postponed[key] = _Postponed(change, text)\n",
                "            data.rebase(key, text)\n            return True\n            if change:\n",
            ),
        ),
        (suite("merge::TestABadValueThatIsCorrected"),),
    ),
    Mutant(
        "outcome-beside-a-bad-value-dropped",
        "A list that JSON cannot hold when the outcome of its save arrives loses what others have appended.",
        Promise.LOST,
        (
            Edit(
                "keys",
                "                self._postponed[key] = _Postponed(change, text)\n",
                "                data.rebase(key, change.mine)\n",
            ),
        ),
        (suite("merge::TestABadValueThatIsCorrected::test_a_list_while_saves_are_in_flight"),),
    ),
    Mutant(
        "settled-conflict-outlives-its-call",
        "If the file is gone, a save writes what others wrote before the outcome of this context's last call.",
        Promise.LOST,
        (Edit("memory", "                self._in_conflict.discard(key)\n", ""),),
        (suite("memory::TestAFileThatIsGone::test_after_a_conflict_that_a_call_has_settled"),),
    ),
    Mutant(
        "taken-over-by-halves",
        "An exception that interrupts taking over a value leaves it changed, but not tracked.",
        Promise.LOST,
        (
            Edit(
                "grafting",
                "    deque(map(operator.call, steps), maxlen=0)\n",
                "    for step in steps:\n        step()\n",
            ),
        ),
        (suite("interrupts::TestTakingOver"),),
    ),
    Mutant(
        "refresh-settles-conflicts-in-silence",
        "After a refresh, a save overwrites what others wrote, whatever on_conflict says.",
        Promise.CLOBBERED,
        (Edit("nested", "    return merged, _with_bases(theirs, merge.conflicts)\n", "    return merged, theirs\n"),),
        (suite("operations::TestRefresh::test_a_conflict_is_settled_by_the_next_save"),),
    ),
    Mutant(
        "conflict-left-behind",
        "A conflicting key that is set back to its old value does not take over what others wrote.",
        Promise.MEMORY,
        (
            Edit(
                "memory",
                "self.data.is_complete = snapshot, in_conflict, True",
                "self.data.is_complete = snapshot, {}, True",
            ),
        ),
        (suite("operations::TestRefresh::test_a_change_taken_back_after_a_refresh_gives_way"),),
    ),
    Mutant(
        "refresh-of-a-missing-file-empties-memory",
        "A missing file is taken for an empty one.",
        Promise.LOST,
        (
            Edit(
                "memory",
                "        if began >= self._read and (snapshot.exists or self.seen is NOTHING):\n",
                "        if began >= self._read:\n",
            ),
        ),
        (suite("operations::TestRefresh::test_a_missing_file_says_nothing"),),
    ),
    Mutant(
        "append-starts-anew",
        "append() replaces the list by its item.",
        Promise.CLOBBERED,
        (Edit("updates", 'text[:-1] + b", " + tail[1:] if known and text is not MISSING else tail', "tail"),),
        (suite("operations::TestAppend"),),
    ),
    Mutant(
        "take-leaves-the-value",
        "Two processes take the same value.",
        Promise.CLOBBERED,
        (
            Edit(
                "updates",
                "(MISSING, default if text is MISSING else decode(text))",
                "(text, default if text is MISSING else decode(text))",
            ),
        ),
        (suite("operations::TestTake::test_only_one_of_many_gets_it"),),
    ),
    Mutant(
        "unknown-base-taken-for-absent",
        "A list that is set without loading is appended to the list in the file.",
        Promise.CLOBBERED,
        (Edit("live", "            self.guesses.add(key)\n", "            pass\n"),),
        (suite("merge::TestWithoutLoading"),),
    ),
    Mutant(
        "additions-of-another-thread-removed",
        "What another thread adds to a list or object, while a merge is taken over, is removed.",
        Promise.LOST,
        (
            Edit("grafting", "for name in before if name not in value", "for name in live if name not in value"),
            Edit("grafting", "slice(len(before))", "slice(None)"),
        ),
        (suite("grafting::TestAdditions"),),
    ),
    Mutant(
        "load-beside-a-save-deletes",
        "After a load beside a save, the next save deletes what the first one has saved.",
        Promise.LOST,
        (Edit("memory", "        self._flights.count_as_part_of(live)\n", ""),),
        (suite("changes_during_a_save::TestALoadBesideASave"),),
    ),
)
