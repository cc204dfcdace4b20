"""Builds that lose, repeat or mix up what is stored in etcd."""

from __future__ import annotations

from typing import Final

from stress.mutants.model import Edit, Mutant, Promise, suite

_UNDISTURBED = "commits::TestUndisturbed::"
_UNANSWERED = "commits::TestWithoutAnAnswer::"
_ENDPOINTS = "gateway::TestEndpoints::"
_USERS = "gateway::TestUsers::"
_DEAD = "turns::TestDeadAndStoppedProcesses::"
_ORDER = "turns::TestOrder::"
_SENT = "turns::TestWhatWasSentWithoutAnAnswer::"
_OTHERS = "etcd_state::TestOtherPrograms::"
_WATCHING = "etcd_contexts::TestWatching::"

ETCD: Final = (
    Mutant(
        "etcd-marker-not-compared",
        "A commit does not compare the marker, so it may be based on a state that is no longer the latest one.",
        Promise.LOST,
        (
            Edit(
                "etcd/commit",
                "comparisons = [*when, is_modified_at(state.names.marker, state.marker.modified), *untouched]",
                "comparisons = [*when]",
            ),
        ),
        (suite(f"{_UNDISTURBED}test_a_change_by_another_process_is_seen"),),
    ),
    Mutant(
        "etcd-keys-not-compared",
        "A key that was changed by a program without the marker is overwritten.",
        Promise.CLOBBERED,
        (Edit("etcd/commit", "state.marker.modified), *untouched]", "state.marker.modified)]"),),
        (suite(f"{_UNDISTURBED}test_a_key_that_a_program_sets_with_etcdctl_is_not_overwritten_unseen"),),
    ),
    Mutant(
        "etcd-turn-not-compared",
        "A commit in a turn that was lost is carried out.",
        Promise.CLOBBERED,
        (
            Edit(
                "etcd/session",
                "is None else turn.comparison()]",
                "is None else nobody_is_in_line(state)][:turn is None]",
            ),
        ),
        (suite(f"{_ORDER}test_even_if_nobody_else_has_written"),),
    ),
    Mutant(
        "etcd-line-not-compared",
        "A commit without a turn is carried out in the middle of a transaction.",
        Promise.LOST,
        (
            Edit(
                "etcd/session",
                "[nobody_is_in_line(state) if turn is None",
                "[*()] if turn is None else [turn.comparison() if not turn",
            ),
        ),
        (suite(f"{_ORDER}test_calls_without_a_turn_do_not_disturb_a_transaction"),),
    ),
    Mutant(
        "etcd-not-settled",
        "A commit whose answer never came is taken for one that was not carried out.",
        Promise.LOST,
        (Edit("etcd/commit", "if revision := self._settled(state, identity, fence):", "if revision := 0:"),),
        (suite(f"{_UNANSWERED}test_a_change_is_made_once[lose-False]"),),
    ),
    Mutant(
        "etcd-sent-again",
        "A commit whose answer never came is sent again.",
        Promise.LOST,
        (
            Edit(
                "etcd/commit",
                "transact([*_nested(writes), *then], when=comparisons, otherwise=otherwise)",
                "transact([*_nested(writes), *then], when=when, otherwise=otherwise, repeatable=True)",
            ),
            Edit(
                "etcd/gateway",
                "in [*range(self._preferred, len(endpoints)), *range(self._preferred)]:",
                "in [*range(self._preferred, len(endpoints)), *range(self._preferred)] * 2:",
            ),
        ),
        (suite(f"{_UNANSWERED}test_it_is_not_sent_again"),),
    ),
    Mutant(
        "etcd-not-fenced",
        "A commit that has not arrived when it is settled is carried out later, a second time.",
        Promise.LOST,
        (
            Edit(
                "etcd/commit",
                "            [put(key, Marker(fence, state.marker.exists).text())] if fence else (),\n",
                "            [get(key)],\n",
            ),
        ),
        (suite(f"{_UNANSWERED}test_one_that_arrives_late_has_no_effect[2-False]"),),
    ),
    Mutant(
        "etcd-history-not-looked-at",
        "A commit that was carried out, and followed by others, is carried out again.",
        Promise.LOST,
        (Edit("etcd/commit", "                    return made[identity]\n", "                    break\n"),),
        (suite(f"{_UNANSWERED}test_it_is_found_among_later_commits"),),
    ),
    Mutant(
        "etcd-later-commits-taken-for-known",
        "A commit that is found in the history is taken for the latest one: the next call overwrites those after it.",
        Promise.LOST,
        (Edit("etcd/commit", "return made[identity]\n", "return revision\n"),),
        (suite(f"{_UNANSWERED}test_it_is_found_among_later_commits"),),
    ),
    Mutant(
        "etcd-full-store-believed",
        "A change that fills etcd's store, which etcd refuses as well as makes, is said not to be made.",
        Promise.FAILURE,
        (Edit("etcd/commit", "            if _NO_SPACE not in error.reason:\n", "            if error:\n"),),
        (suite("commits::TestAFullStore::test_what_was_carried_out_is_not_said_to_be_refused[0-False]"),),
    ),
    Mutant(
        "etcd-own-fence-not-known",
        "What a process has sent to settle a commit is taken for another one's commit.",
        Promise.FAILURE,
        (
            Edit("etcd/commit", "if latest.identity in {identity, fence}:", "if latest.identity == identity:"),
            Edit("etcd/commit", "isdisjoint({identity, fence}):", "isdisjoint({identity}):"),
        ),
        (suite(f"{_UNANSWERED}test_it_is_settled_although_the_answer_to_that_is_lost_too"),),
    ),
    Mutant(
        "etcd-unknown-taken-for-failed",
        "A commit that could not be settled is carried out again.",
        Promise.FAILURE,
        (Edit("etcd/commit", "                raise OutcomeUnknownError(msg)\n", "                return 0\n"),),
        (suite(f"{_UNANSWERED}test_what_was_compacted_is_unknown"),),
    ),
    Mutant(
        "etcd-failed-on-an-old-state",
        "A call that fails on a state that is not the latest one fails for good.",
        Promise.FAILURE,
        (Edit("cycle", "applied if applied and session.is_exclusive else accepting", "applied"),),
        (suite(f"{_UNDISTURBED}test_a_call_that_fails_looks_at_the_latest_state"),),
    ),
    Mutant(
        "etcd-old-state-confirmed",
        "A call that changes nothing returns a result of a state that is not the latest one.",
        Promise.LOST,
        (Edit("etcd/session", "(is_large or not (changes or self._is_fresh))", "is_large"),),
        (suite(f"{_UNDISTURBED}test_a_call_that_changes_nothing_looks_at_the_latest_state"),),
    ),
    Mutant(
        "etcd-serializable-reads",
        "Reads are answered by a single member, which may lag behind.",
        Promise.LOST,
        (
            Edit(
                "etcd/client",
                '{"key": text(key), "range_end": text(end), **newer, **options}',
                '{"key": text(key), "range_end": text(end), "serializable": True, **newer, **options}',
            ),
        ),
        (suite("gateway::TestAMemberThatIsCutOff::test_it_does_not_answer_reads"),),
    ),
    Mutant(
        "etcd-lease-not-kept-alive",
        "A transaction that takes longer than a lease lives is lost.",
        Promise.FAILURE,
        (Edit("etcd/lease", "is_alive = self._client.keep_alive(number)", "is_alive = True"),),
        (suite(f"{_DEAD}test_a_lease_is_kept_alive"),),
    ),
    Mutant(
        "etcd-thread-counted-before-it-runs",
        "After the system had no thread for a lease once, transactions of this process are lost after ten seconds.",
        Promise.FAILURE,
        (
            Edit(
                "etcd/lease",
                "            if self._thread is None or not self._thread.is_alive():\n",
                "            if self._thread is None:\n",
            ),
            Edit(
                "etcd/lease",
                "self._thread = started(",
                "self._thread = threading.Thread()\n                self._thread = started(",
            ),
        ),
        (suite(f"{_DEAD}test_a_thread_that_cannot_be_started_is_started_the_next_time[etcd lease]"),),
    ),
    Mutant(
        "etcd-lease-locked-twice",
        "A transaction that is discarded while its thread is granted a lease waits for that thread for ever.",
        Promise.CANCELLING,
        (Edit("etcd/lease", "self._lock = threading.RLock()", "self._lock = threading.Lock()"),),
        (suite(f"{_DEAD}test_a_turn_may_end_while_a_lease_is_granted", limit=15),),
    ),
    Mutant(
        "etcd-lease-that-ended-kept",
        "After its lease has ended, a process can no longer get in line.",
        Promise.STARVES,
        (
            Edit(
                "etcd/turns",
                "            self._lease.discard(lease)  # the place may be taken all the same",
                "            #",
            ),
            Edit(
                "etcd/lease",
                "(number, began + LIFETIME_SECONDS) if is_alive else (0, 0.0)",
                "(number, began + LIFETIME_SECONDS)",
            ),
        ),
        (suite(f"{_DEAD}test_a_lease_that_has_ended_is_replaced"),),
    ),
    Mutant(
        "etcd-dead-not-evicted",
        "All processes wait for the lease of one that was killed to end.",
        Promise.STARVES,
        (Edit("etcd/turns", "            if _holder_of(item) is not None:\n", "            if item:\n"),),
        (suite(f"{_DEAD}test_a_killed_process_of_this_machine_gives_way_at_once"),),
    ),
    Mutant(
        "etcd-stopped-evicted",
        "A process that is alive is taken for dead, and loses its turn.",
        Promise.STARVES,
        (Edit("etcd/turns", "            if _holder_of(item) is not None:\n", "            if item is None:\n"),),
        (suite(f"{_DEAD}test_a_stopped_process_keeps_its_turn_for_a_while"),),
    ),
    Mutant(
        "etcd-late-place-blocks",
        "A request to get in line whose answer was lost blocks everybody until the process ends.",
        Promise.STARVES,
        (
            Edit(
                "etcd/turns",
                "            self._lease.discard(lease)  # if it arrives late, it must not be taken for somebody's\n",
                "",
            ),
        ),
        (
            suite(f"{_SENT}test_a_place_in_line_blocks_nobody[lose]"),
            suite(f"{_SENT}test_a_place_in_line_blocks_nobody[hold]"),
        ),
    ),
    Mutant(
        "etcd-turn-not-given-up",
        "A turn whose end fails in an unexpected way is kept alive, and blocks everybody, until the process ends.",
        Promise.STARVES,
        (
            Edit(
                "etcd/turns",
                "        except BaseException as error:\n",
                "        except (UnreachableError, RefusedError) as error:\n",
            ),
        ),
        (suite(f"{_SENT}test_a_turn_whose_end_fails_ends_too"),),
    ),
    Mutant(
        "etcd-queue-without-order",
        "The last to come is the first to get a turn.",
        Promise.STARVES,
        (
            Edit("etcd/line", "return min(self._items.values()", "return max(self._items.values()"),
            Edit("etcd/client", 'sort_order="ASCEND"', 'sort_order="DESCEND"'),
        ),
        (suite(f"{_ORDER}test_the_first_to_come_is_the_first_to_go"),),
    ),
    Mutant(
        "etcd-turn-not-asked-for",
        "A process whose stream is cut off does not notice that its turn has come.",
        Promise.STARVES,
        (Edit("etcd/turns", "if not own.items or first.items[0].key == place.key:", "if not own.items:"),),
        (suite("turns::TestTheLine::test_a_turn_is_noticed_without_it"),),
    ),
    Mutant(
        "etcd-watch-not-resumed",
        "A watch ends silently when its stream breaks.",
        Promise.MEMORY,
        (
            Edit(
                "etcd/subscription",
                "so is the next read\n            self._closed.wait(_RETRY_SECONDS)\n",
                "so is the next read\n            return False\n",
            ),
        ),
        (suite(f"{_WATCHING}test_a_stream_that_breaks_is_followed_again"),),
    ),
    Mutant(
        "etcd-watch-resumed-without-a-look",
        "Changes that were made while the stream of a watch was down are not told.",
        Promise.MEMORY,
        (
            Edit(
                "etcd/subscription",
                "        if not self._notify():\n            return False\n        try:\n",
                "        try:\n",
            ),
        ),
        (suite(f"{_WATCHING}test_a_change_that_comes_while_the_stream_is_down_is_seen"),),
    ),
    Mutant(
        "etcd-watch-silent",
        "A watch whose user may no longer read says nothing, for ever.",
        Promise.FAILURE,
        (
            Edit(
                "etcd/subscription",
                "        except UnreachableError:\n",
                "        except (UnreachableError, RefusedError):\n",
            ),
        ),
        (suite(f"{_USERS}test_a_watch_says_that_it_may_no_longer_read"),),
    ),
    Mutant(
        "etcd-removed-keys-kept",
        "A key that another process has deleted is still there.",
        Promise.MEMORY,
        (Edit("etcd/state", "found[0].count != len(self.modified.keys() | values.keys())", "False"),),
        (suite(f"{_OTHERS}test_what_they_set_and_delete_is_read"),),
    ),
    Mutant(
        "etcd-value-not-checked",
        "A value that is not JSON is taken over, and breaks whatever reads it.",
        Promise.TORN,
        (
            Edit(
                "etcd/state",
                "    if text is None:\n        raise _corrupt",
                "    if text is None:\n        return item.value\n        raise _corrupt",
            ),
        ),
        (suite(f"{_OTHERS}test_what_is_not_json_is_an_error_that_names_the_key[nonsense]"),),
    ),
    Mutant(
        "etcd-order-forgotten",
        "Keys that were set together come in another order.",
        Promise.MEMORY,
        (
            Edit(
                "etcd/state",
                "        return last if needs_numbers else []\n",
                "        return last if needs_numbers and False else []\n",
            ),
        ),
        (suite("etcd_state::TestOrder::test_keys_that_were_set_together_keep_their_order"),),
    ),
    Mutant(
        "etcd-namespaces-overlap",
        "A namespace may be taken for a key of another one.",
        Promise.CLOBBERED,
        (Edit("etcd/address", "    _require(is_free, ", "    _require(True, "),),
        (suite("address::TestAnInvalidOne::test_is_refused_at_once"),),
    ),
    Mutant(
        "etcd-password-shown",
        "The URL with the password is what errors and logs show.",
        Promise.ACCESS,
        (Edit("etcd/address", "    place = address.place()\n", "    place = url\n"),),
        (suite("address::TestTheContext::test_shows_no_credentials"),),
    ),
    Mutant(
        "etcd-password-in-tracebacks",
        "The traceback of an error shows the password.",
        Promise.ACCESS,
        (Edit("etcd/connections", '        return f"<{len(self)} bytes>"\n', "        return super().__repr__()\n"),),
        (suite(f"{_USERS}test_a_wrong_password_is_refused_and_shown_nowhere"),),
    ),
    Mutant(
        "etcd-token-not-renewed",
        "After its token has expired, a process can do nothing any more.",
        Promise.FAILURE,
        (Edit("etcd/gateway", "if error.code != _UNAUTHENTICATED and error", "if error"),),
        (suite(f"{_USERS}test_a_token_that_has_expired_is_replaced"),),
    ),
    Mutant(
        "etcd-dead-endpoint-asked-first",
        "An endpoint that does not answer is asked first by every call.",
        Promise.FAILURE,
        (
            Edit("etcd/gateway", "                self._preferred = number\n", ""),
            Edit(
                "etcd/gateway",
                "                    self._preferred = (number + 1) % len(endpoints)\n",
                "",
            ),
        ),
        (suite(f"{_ENDPOINTS}test_one_that_does_not_answer_is_passed_over"),),
    ),
    Mutant(
        "etcd-own-commit-hides-another",
        "What another program has written to a key before a commit of this process is never read.",
        Promise.CLOBBERED,
        (
            Edit(
                "etcd/state",
                "self.read_at + 1 if self.read_at else 0",
                "self.revision + 1 if self.revision else 0",
            ),
        ),
        (suite("commits::TestUndisturbed::test_nor_after_commits_of_other_keys"),),
    ),
    Mutant(
        "etcd-large-commit-blind",
        "A commit of many keys overwrites what another program wrote before the last commit of this process.",
        Promise.CLOBBERED,
        (Edit("etcd/session", "        is_large = ", "        is_large = False and "),),
        (suite("commits::TestUndisturbed::test_nor_after_commits_of_other_keys"),),
    ),
    Mutant(
        "etcd-fails-at-once",
        "A call fails at once when no endpoint answers, although its timeout has not expired.",
        Promise.FAILURE,
        (Edit("etcd/failures", "class UnreachableError(SessionLostError):", "class UnreachableError(OSError):"),),
        (suite(f"{_ENDPOINTS}test_when_one_comes_back_waiting_calls_succeed"),),
    ),
    Mutant(
        "etcd-try-waits",
        "A call that only tries never returns after an earlier one has timed out, as no endpoint can be reached.",
        Promise.FAILURE,
        (
            Edit(
                "etcd/turns",
                "self._waiting.add(threading.get_ident())\n                time.sleep(_RETRY_SECONDS)\n",
                "time.sleep(_RETRY_SECONDS)\n",
            ),
        ),
        (suite(f"{_ENDPOINTS}test_not_even_while_an_earlier_call_is_still_tried"),),
    ),
    Mutant(
        "etcd-lease-lost-in-a-moment",
        "A lease is said to be lost as no endpoint could be reached for a moment when it was left.",
        Promise.LEASE,
        (Edit("etcd/leases", "                if time.monotonic() > deadline:\n", "                if deadline:\n"),),
        (suite("turns::TestLeavingALease::test_a_cluster_that_does_not_answer_is_asked_again"),),
    ),
    Mutant(
        "etcd-compacted-taken-for-lost",
        "A commit is said to be unknown although enough of the history is left to settle it.",
        Promise.FAILURE,
        (Edit("etcd/commit", "if max(then.values(), default=0) != state.marker.modified:", "if error:"),),
        (suite(f"{_UNANSWERED}test_what_is_left_of_the_history_is_enough"),),
    ),
    Mutant(
        "etcd-comparisons-not-counted",
        "Calls with long keys fail because they share a cycle with others, and are too large together.",
        Promise.FAILURE,
        (Edit("etcd/commit", "    total += sum(_OVERHEAD_BYTES + ", "    total += 0 * sum(_OVERHEAD_BYTES + "),),
        (suite("commits::TestTooMuch::test_keys_count_as_often_as_they_are_sent"),),
    ),
    Mutant(
        "etcd-nobody-blamed",
        "A call that could not get in line, as no endpoint answered, says that the lock is free.",
        Promise.FAILURE,
        (Edit("etcd/turns", "                self._trouble = error\n", ""),),
        (suite(f"{_ENDPOINTS}test_if_nobody_can_get_in_line_the_cluster_is_why"),),
    ),
    Mutant(
        "etcd-large-group-fails",
        "Calls fail because they share a cycle with others, and are too large together.",
        Promise.FAILURE,
        (Edit("cycle", "    if isinstance(failure, StoreLimitError) and len(applied) > 1:\n", "    if False:\n"),),
        (suite("commits::TestTooMuch::test_calls_that_share_a_cycle_go_alone"),),
    ),
    Mutant(
        "etcd-limit-not-checked",
        "A call that is too large fails with a message of etcd that does not name the key.",
        Promise.FAILURE,
        (Edit("etcd/commit", "    if total > MOST_BYTES:\n", "    if False:\n"),),
        (suite("commits::TestTooMuch::test_one_call_is_refused"),),
    ),
)
