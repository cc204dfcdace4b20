"""Builds that lose track of a context's unsaved changes, or of the effects of its calls."""

from __future__ import annotations

from typing import Final

from stress.mutants.model import Edit, Mutant, Promise, suite

TRACKING: Final = (
    Mutant(
        "change-taken-along-twice",
        "Two calls that were made while a key was unsaved both apply the change.",
        Promise.LOST,
        (
            Edit(
                "draft",
                "        if is_included and change.moment <= own.moment:\n",
                "        if False:\n",
            ),
        ),
        (
            suite(
                "tracking::TestCallsMadeAtOnce::test_a_save_that_waited_does_not_undo_what_others_made_of_it",
                "tracking::TestATransactionThatCallsWaitFor",
            ),
        ),
    ),
    Mutant(
        "change-that-is-none-taken-later",
        "A change back to the value in the file is applied by a later call than the one that saw it.",
        Promise.LOST,
        (
            Edit(
                "draft",
                "            own[key] = Own(known.text, known.written, moment, self.position, known.others)\n",
                "            if not same(change.base, change.mine):\n"
                "                own[key] = Own(known.text, known.written, moment, self.position, known.others)\n",
            ),
        ),
        (suite("interleavings::test_found_before", limit=60),),
    ),
    Mutant(
        "change-taken-before-leaves-no-trace",
        "A call that finds its change already included does not record that, and a later call applies it again.",
        Promise.LOST,
        (
            Edit(
                "draft",
                "        for key, change in author.unsaved.items():\n",
                "        for key, change in pending.items():\n",
            ),
        ),
        (suite("interleavings::test_found_before[a change that several calls have seen is not made again]", limit=60),),
    ),
    Mutant(
        "agreement-is-no-own-text",
        "A change that agrees with the file is not recorded as the context's own, so a later call has an old base.",
        Promise.CLOBBERED,
        (
            Edit(
                "draft",
                "                own[key] = Own(text, self.position, known.moment, known.taken)\n"
                "                self._claims = True\n",
                "                self._claims = True\n",
            ),
        ),
        (suite("interleavings::test_found_before[a deletion that was none is followed by a change]", limit=60),),
    ),
    Mutant(
        "arrived-call-still-under-way",
        "A call whose outcome has arrived counts as in flight until its caller gets it.",
        Promise.MEMORY,
        (Edit("memory", "        for write in arrival.over:", "        for write in ():"),),
        (suite("memory::TestMemory::test_a_call_is_over_when_its_outcome_has_arrived"),),
    ),
    Mutant(
        "set-back-and-then-told-otherwise",
        "A key that is set back while a call on it is in flight is overwritten by the result of a save.",
        Promise.MEMORY,
        (
            Edit(
                "keys",
                "        return not same(mine, touched.base) or self._is_last_word(key, mine, touched.moment)\n",
                "        return not same(mine, touched.base)\n",
            ),
        ),
        (suite("interleavings::test_found_before[a key set back after a call stays so when a save tells]", limit=60),),
    ),
    Mutant(
        "set-that-a-call-interrupts-lost",
        "A key that a signal handler's call changes while it is being set ends up with the value of that call.",
        Promise.MEMORY,
        (Edit("keys", "            looked = write.origin.moment\n", "            pass\n"),),
        (suite("interrupts::TestInterrupts::test_a_set_that_a_call_interrupts_comes_after_it"),),
    ),
    Mutant(
        "half-set-key-taken-for-changed",
        "A signal handler that reads a key while it is being set gets the undecoded text.",
        Promise.MEMORY,
        (Edit("live", "_UNDECODED if is_undecoded else MISSING", "MISSING"),),
        (suite("interrupts::TestInterrupts::test_a_set_that_a_call_interrupts_comes_after_it"),),
    ),
    Mutant(
        "set-back-during-a-call-forgotten",
        "A key that is set back while a save of it is in flight is taken for unchanged.",
        Promise.LOST,
        (
            Edit(
                "keys",
                "            if change and not same(change.mine, mine):\n                return True\n",
                "",
            ),
            Edit(
                "keys",
                "            if set_at > (change.set_at if change else looked):\n                return True\n",
                "",
            ),
        ),
        (suite("tracking::TestTakingBack"),),
    ),
    Mutant(
        "set-anew-during-a-call-forgotten",
        "A key that is set to the same value again while a call on it is in flight is taken for what that call saw.",
        Promise.MEMORY,
        (
            Edit(
                "keys",
                "            return touched.moment > change.set_at or not same(mine, change.mine)\n",
                "            return not same(mine, change.mine)\n",
            ),
        ),
        (suite("interleavings::test_found_before", limit=60),),
    ),
    Mutant(
        "older-outcome-taken-for-newer",
        "The result of a call arrives after a newer load, and overwrites it.",
        Promise.MEMORY,
        (
            Edit("memory", "elif arrival.position > self.position:  # otherwise memory was loaded since\n", "else:\n"),
            Edit(
                "memory",
                "                return  # by another thread, while a signal handler had the lock of memory released\n",
                "                pass\n",
            ),
        ),
        (suite("interleavings::test_found_before", limit=60),),
    ),
    Mutant(
        "reading-of-unknown-age",
        "What is read without the lock is taken for newer than a call that was carried out in the meantime.",
        Promise.MEMORY,
        (
            Edit(
                "tracking",
                "            if not self.is_writing and (position, written) == (self.done, self.written):\n",
                "            position = self.done\n            if True:\n",
            ),
        ),
        (suite("tracking::TestReadings"),),
    ),
    Mutant(
        "own-writes-pile-up",
        "The effects of a context's calls on a key are remembered forever.",
        Promise.MEMORY,
        (
            Edit(
                "tracking",
                "        while self._log and self._log[0][0] <= self.horizon:\n",
                "        while False:\n",
            ),
        ),
        (suite("tracking::TestGrowth"),),
    ),
    Mutant(
        "keys-ahead-pile-up",
        "Keys that came and went since the last save are remembered.",
        Promise.MEMORY,
        (Edit("memory", "                    self._ahead.pop(key, None)\n", "                    pass\n"),),
        (suite("tracking::TestGrowth"),),
    ),
    Mutant(
        "deleted-keys-pile-up",
        "Keys that are neither in memory nor in the file are remembered.",
        Promise.MEMORY,
        (Edit("keys", "            del self.data.touched[key]\n", "            pass\n"),),
        (suite("tracking::TestGrowth"),),
    ),
    Mutant(
        "jobs-never-saved-pile-up",
        "Keys that were set and deleted before any save are remembered.",
        Promise.MEMORY,
        (
            Edit(
                "memory",
                "            else:\n                self._bury(key)\n        mine = ",
                "            else:\n                pass\n        mine = ",
            ),
        ),
        (suite("tracking::TestGrowth::test_of_a_blocking_context[never saved]"),),
    ),
    Mutant(
        "interrupt-keeps-memory-locked",
        "While a signal handler waits for a call, other threads are locked out of the context's memory.",
        Promise.STARVES,
        (
            Edit("guard", "deque(itertools.starmap(_acquire, iter(released.pop, None)), maxlen=0)", "pass"),
            Edit("guard", "released.extend(zip(owned, map(_release, owned), strict=True))", "pass"),
        ),
        (suite("interrupts::TestInterrupts::test_one_in_the_midst_of_memory_lets_another_thread_finish", limit=15),),
    ),
    Mutant(
        "interrupt-keeps-another-memory-locked",
        "While a signal handler waits for a call, other threads are locked out of the memory of other contexts.",
        Promise.STARVES,
        (
            Edit(
                "guard",
                "if guard is not None and _is_owned(guard)",
                "if guard is function.__self__._memory._lock and _is_owned(guard)",
            ),
        ),
        (
            suite(
                "interrupts::TestInterrupts::test_one_in_the_midst_of_memory_lets_another_thread_finish[another]",
                limit=15,
            ),
        ),
    ),
    Mutant(
        "guards-lost-by-an-interrupt",
        "A signal handler's exception that comes while the guards are released leaves them released.",
        Promise.MEMORY,
        (
            Edit(
                "guard",
                "    finally:  # if an exception came before the other one\n        _reacquire(released)",
                "    finally:\n        pass",
            ),
        ),
        (suite("guard::TestCallingReleased::test_an_exception_at_any_moment_leaves_them_held"),),
    ),
    Mutant(
        "interrupted-drain-loses-a-result",
        "An exception that interrupts taking over a result loses the result.",
        Promise.MEMORY,
        (
            Edit(
                "guarded",
                "                    self.absorb(self._inbox[0])\n                    self._inbox.popleft()\n",
                "                    self.absorb(self._inbox.popleft())\n",
            ),
        ),
        (suite("interrupts::TestInterrupts::test_a_drain_that_is_interrupted_is_done_again"),),
    ),
    Mutant(
        "handlers-exception-swallowed",
        "An error that a signal handler raises while a value is encoded is taken for a value that JSON cannot hold.",
        Promise.CANCELLING,
        (Edit("values", "        if _is_sound(value, key):\n            raise\n", "        pass\n"),),
        (suite("interrupts::TestInterrupts::test_what_a_handler_raises_while_a_value_is_encoded_goes_on", limit=40),),
    ),
    Mutant(
        "changing-value-refused",
        "A list that another thread changes while it is saved is taken for a value that JSON cannot hold.",
        Promise.FAILURE,
        (Edit("values", "            if _encode(value) == text:\n", "            if True:\n"),),
        (suite("blocking::TestThreads::test_a_list_that_grows_between_two_looks_at_it_is_saved"),),
    ),
    Mutant(
        "bad-item-that-is-gone-raises",
        "An item that JSON cannot hold, and that another thread has removed again, makes a call fail.",
        Promise.FAILURE,
        (Edit("values", "            except _NotJsonError:\n", "            except MemoryError:\n"),),
        (suite("blocking::TestThreads::test_a_bad_item_that_is_gone_at_a_second_look_is_no_error"),),
    ),
    Mutant(
        "found-and-not-synced",
        "A save acknowledges what it found in the file, although that may be lost in a power loss.",
        Promise.LOST,
        (
            Edit(
                "draft",
                '"""Note that a call acknowledges what it found in the file, without changing it."""\n'
                "        self._claims = True\n",
                "pass\n",
            ),
        ),
        (suite("durability::TestADurableCallThatWritesNothing"),),
    ),
    Mutant(
        "growth-in-place-taken-for-the-same",
        "A list that grows further while it is being saved is taken for the one that the save includes.",
        Promise.LOST,
        (Edit("keys", "            and flight.mine(last) == mine\n", ""),),
        (suite("tracking::TestTakingBack::test_a_list_that_grows_in_place_while_it_is_saved_is_saved_again"),),
    ),
    Mutant(
        "made-and-still-missing",
        "An empty file that one call of a cycle has made is still missing for the next one.",
        Promise.MEMORY,
        (
            Edit(
                "draft",
                "        self._must_exist = self._is_new\n        self._is_new = False\n",
                "        self._must_exist = self._is_new\n",
            ),
        ),
        (suite("tracking::TestAMissingFile"),),
    ),
    Mutant(
        "old-place-kept",
        "A key that was deleted and set again keeps its old place in the file.",
        Promise.MEMORY,
        (Edit("draft", "Changes(texts, self._moved, ", "Changes(texts, (), "),),
        (suite("format::TestOrder"),),
    ),
    Mutant(
        "tilde-taken-literally",
        "A path that begins with a tilde makes a directory of that name.",
        Promise.FAILURE,
        (Edit("factory", "os.path.abspath(os.path.expanduser(place))", "os.path.abspath(place)"),),
        (suite("base::TestHome"),),
    ),
)
