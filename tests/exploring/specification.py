"""What may be observed of a program, whatever its schedule.

For each context and key:

1. A *change* (set, delete, in-place change) belongs to the moment at which it was made.
2. Calls apply in the order in which they were made. Each includes the changes of its context that were made before it
   (a transaction: before it touched the key) and that no earlier call has included; an atomic call or transaction those
   of its own keys, ``save()`` all of them. A call that failed or was withdrawn has included nothing.
3. The *base* of a change is what the context knew of the key when it made the change, or what an earlier call of the
   same context has written since: that is never a conflict. A call that left what it found has written nothing.
4. A change meets what is in the file when its call applies: if that is the base, or the same as the change, the change
   is written; else ``on_conflict`` decides, and a function gets base, mine and theirs. A change that equals its base
   is not a change.
5. ``load()`` reads the file at one moment between its start and its end, and takes effect at one, later moment: what is
   unsaved then is dropped; a change made after the load began may be kept.
6. At rest, memory has the last change of the key if it was not included or dropped; else what the file held when the
   context's last call that read or wrote the key applied, or when its last load read, whichever was later.
   ``unsaved_keys()`` are the keys of the former kind whose value differs from what is known of the file.
7. After a last ``save()`` memory is the file, and nothing is unsaved.

What is left open: how many calls a cycle contains; whether a cancelled call has its whole effect or none; whether a
change that makes a key equal to what the context believes to be in the file is one, unless a call has included another
change of the key and is not over; whether a call that meets such a change, and leaves the key unchanged, has included
it; whether what arrives while there is an unsaved change becomes its base.

So there are several possible *worlds*. Each observation (the file after a job, the result of a call, memory at rest)
keeps those that agree with it, and it is a violation if none is left.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

NOWHERE = 10**9


class ViolationError(AssertionError):
    """An observation that is not allowed."""


class _FailedError(Exception):
    """Raised by a call."""


@dataclass(frozen=True)
class Change:
    """A change that the program made in memory: the texts before and after."""

    before: str | None
    mine: str | None
    step: int


@dataclass(eq=False)
class Call:
    """A call of the program, and what was observed of it."""

    number: int
    action: Any
    made: int
    touched: int | None = None
    """When a transaction touched its key."""
    body_over: bool = False
    cancelled: bool = False
    over: int = NOWHERE


@dataclass(frozen=True)
class Own:
    """What a context itself has written to the file."""

    text: str | None
    call: Call
    step: int


@dataclass(frozen=True)
class World:
    """One possible state of affairs."""

    versions: tuple[dict[str, str], ...]
    """The versions of the file so far."""
    steps: tuple[int, ...] = (0,)
    """The steps since when the file held them."""
    next: int = 0
    """The first call that was not applied."""
    results: dict[Call, object] = field(default_factory=dict)
    taken: dict[Any, tuple[int, int]] = field(default_factory=dict)
    """The last change of a key that was included, and when."""
    drops: dict[Any, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    """Up to which change of a key a load has dropped the changes, and when."""
    own: dict[Any, Own] = field(default_factory=dict)
    known: dict[Any, int] = field(default_factory=dict)
    """The version that the last call on a key left."""
    reads: dict[Any, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    """The versions that calls on a key left, and when they did."""
    loads: dict[Call, tuple[int, int] | None] = field(default_factory=dict)
    """The range of versions that a load may have read."""

    @property
    def file(self) -> dict[str, str]:
        return self.versions[-1]

    def identity(self) -> object:
        return (
            *(frozenset(version.items()) for version in self.versions),
            self.steps,
            self.next,
            *(frozenset(mapping.items()) for mapping in (self.results, self.taken, self.drops, self.own, self.known)),
            frozenset(self.reads.items()),
            frozenset(self.loads.items()),
        )

    def version_at(self, step: int) -> int:
        return max(number for number, since in enumerate(self.steps) if since <= step)


WITHDRAWN = "withdrawn"


class Specification:
    """The worlds that agree with all observations so far."""

    def __init__(self, policies: dict[str, object], keys: set[str], initial: dict[str, str]) -> None:
        self.policies = policies
        self.keys = sorted(keys)
        self.changes: dict[Any, list[Change]] = {(who, key): [] for who in policies for key in self.keys}
        self.calls: list[Call] = []
        self.loads: list[Call] = []
        self.arrivals: dict[int, int] = {}
        """By the step at which a job ran, the step at which the loop learnt of it."""
        self.worlds = [World((initial,), known=dict.fromkeys(self.changes, 0))]

    # Events.

    def changed(self, who: str, key: str, change: Change, unsaved: set[str]) -> None:
        """A context's memory was changed; these are unsaved after that."""
        place = who, key
        self.changes[place].append(change)
        if key not in unsaved:
            number = len(self.changes[place])
            quiet = [
                _with(world, "drops", place, (*world.drops.get(place, ()), (number, change.step)))
                for world in self.worlds
                if not self._is_on_its_way(world, place)
            ]
            self.worlds += quiet

    def made(self, call: Call) -> None:
        """A call was made."""
        (self.loads if call.action.name == "load" else self.calls).append(call)

    def edited(self, key: str, text: str | None, step: int) -> None:
        """Another program replaced a key."""
        self.worlds = [_write(world, {key: text}, step) for world in self.worlds]

    def job_ran(self, step: int, file: dict[str, str]) -> None:
        """A job ran, and this is the file now."""
        after = [new for world in self.worlds for new in self._advance(world, step)]
        self._keep(
            [world for world in after if world.file == file], f"the file holds {show(file)}", lambda: _files(after)
        )

    def turned(self, step: int) -> None:
        """The loop turned, after something had arrived; loads may have taken effect."""
        for load in self.loads:
            if load.over == NOWHERE:
                self._worlds([new for world in self.worlds for new in (world, *self._loaded(world, load, step))])

    def _moments_of(self, step: int) -> tuple[int, ...]:
        """The possible moments of a touch in a turn: before or after what else happened in it."""
        return (step - 1, step) if any(call.touched == step for call in self.calls) else (step,)

    def is_over(self, call: Call, outcome: object, step: int) -> None:
        """A call is over."""
        call.over = step
        if outcome == "raised CancelledError" and call.cancelled:
            self._worlds([_with(world, "results", call, world.results.get(call, WITHDRAWN)) for world in self.worlds])
        elif call.action.name == "load":
            before = self.worlds
            effects = [
                world if call in world.loads else new
                for world in before
                for new in ([world] if call in world.loads else self._loaded(world, call, step))
            ]
            self._keep(
                effects if outcome == "returned null" else [], f"{call.action} {outcome}", lambda: "returned null"
            )
        else:
            before = self.worlds
            self._keep(
                [world for world in before if world.results.get(call) == outcome],
                f"{call.action} (call {call.number}) {outcome}",
                lambda: ", or ".join(sorted({str(world.results.get(call, "was not applied")) for world in before})),
            )

    def at_rest(self, who: str, memory: dict[str, str], unsaved: set[str], *, saved: bool = False) -> None:
        """All calls are over, and no step is left."""
        before = self.worlds
        reasons = [self._reason(world, who, memory, unsaved, saved=saved) for world in before]
        seen = f"at rest {who} has {show(memory)}, unsaved {sorted(unsaved)}"
        self._keep(
            [world for world, reason in zip(before, reasons, strict=True) if not reason],
            seen,
            lambda: "; or ".join(
                sorted(
                    {
                        f"{reason}, with {show(world.file)} in the file"
                        for world, reason in zip(before, reasons, strict=True)
                    }
                )
            ),
        )

    # Conclusions.

    def _keep(self, worlds: list[World], seen: str, allowed: Any) -> None:
        if not worlds:
            raise ViolationError(f"{seen}\n  allowed: {allowed()}")
        self._worlds(worlds)

    def _worlds(self, worlds: list[World]) -> None:
        self.worlds = list({world.identity(): world for world in worlds}.values()) if len(worlds) > 1 else worlds

    def _alive(self, world: World, place: Any, step: int) -> int:
        """The number of the last change of a key before a step, or 0 if there is none, or it was dropped by then."""
        number = sum(1 for change in self.changes[place] if change.step < step)
        dropped = max((upto for upto, when in world.drops.get(place, ()) if when < step), default=0)
        return number if number > dropped else 0

    def _snapshot(self, world: World, call: Call, key: str) -> int:
        return self._alive(world, (call.action.context, key), call.made if call.touched is None else call.touched)

    def _is_on_its_way(self, world: World, place: Any) -> bool:
        """Return whether a call that is not over includes a change of the key."""
        who, key = place
        return any(
            call.over == NOWHERE
            and call.action.context == who
            and key in self._keys(call)
            and self._snapshot(world, call, key) > max((upto for upto, _ in world.drops.get(place, ())), default=0)
            for call in self.calls
        )

    def _keys(self, call: Call) -> list[str]:
        return self.keys if call.action.name == "save" else [call.action.key]

    def _same_cycle(self, world: World, version: int) -> range:
        """A version, and those that later calls of the same cycle made of it."""
        last = version
        while version and last + 1 < len(world.steps) and world.steps[last + 1] == world.steps[version]:
            last += 1
        return range(version, last + 1)

    def _arrived(self, step: int) -> int:
        return self.arrivals.get(step, NOWHERE)

    def _bases(self, world: World, call: Call | None, place: Any, number: int) -> set[str | None]:
        """Return the possible bases of a change when a call is made, or at rest."""
        candidates = self._known_before(world, place, number)
        bases = self._own_bases(world, call, place, candidates)
        first, until = min(candidates.values()), NOWHERE
        if call:
            until = call.made if call.touched is None else call.touched
        for version, when in world.reads.get(place, ()):
            if first <= self._arrived(when) <= until:
                bases.update(world.versions[later].get(place[1]) for later in self._same_cycle(world, version))
        for load, span in world.loads.items():
            if load.action.context == place[0] and span and load.over > first:
                bases.update(version.get(place[1]) for version in world.versions[span[0] : span[1] + 1])
        return bases

    def _own_bases(
        self, world: World, call: Call | None, place: Any, candidates: dict[str | None, int]
    ) -> set[str | None]:
        """Return what was known before a change, or what an earlier call of the same context has written since."""
        own = world.own.get(place)
        if own is None or own.call is call:
            return set(candidates)
        bases = set()
        for text, step in candidates.items():
            if self._arrived(own.step) > step or own.call.over > step:
                bases.add(own.text)
            if self._arrived(own.step) <= step:
                bases.add(text)
        return bases

    def _known_before(self, world: World, place: Any, number: int) -> dict[str | None, int]:
        """Return what memory held before a change and those that it followed on, and when that was seen."""
        candidates: dict[str | None, int] = {}
        changes = self.changes[place]
        for index in range(number - 1, -1, -1):
            change = changes[index]
            last = changes[index - 1] if index else None
            if last is None or change.before != last.mine or not self._alive_by(world, place, index, change.step):
                candidates.setdefault(change.before, change.step)
                break
            if self._arrived(world.taken.get(place, (0, NOWHERE))[1]) <= change.step and world.taken[place][0] >= index:
                candidates.setdefault(change.before, change.step)
        return candidates

    def _alive_by(self, world: World, place: Any, number: int, step: int) -> bool:
        dropped = max((upto for upto, when in world.drops.get(place, ()) if when < step), default=0)
        return number > dropped

    def _advance(self, world: World, step: int) -> Iterator[World]:
        """Yield the worlds after none, some or all of the waiting calls."""
        yield world
        if world.next == len(self.calls):
            return
        call = self.calls[world.next]
        after = replace(world, next=world.next + 1)
        if world.results.get(call) == WITHDRAWN:
            yield from self._advance(after, step)
            return
        if call.cancelled:
            yield from self._advance(_with(after, "results", call, WITHDRAWN), step)
        if call.action.name != "tx" or call.body_over:
            for new in self._apply(after, call, step):
                yield from self._advance(new, step)

    def _apply(self, world: World, call: Call, step: int) -> Iterator[World]:
        keys = self._keys(call)
        who = call.action.context
        took = {}
        for key in keys:
            number = self._snapshot(world, call, key)
            if number > world.taken.get((who, key), (0, 0))[0]:
                took[key] = number
        choices = [sorted(self._bases(world, call, (who, key), took[key]), key=str) for key in took]
        for bases in itertools.product(*choices):
            mine = {key: self.changes[who, key][took[key] - 1].mine for key in took}
            try:
                changes = self._merge(who, dict(zip(took, bases, strict=True)), mine, world.file)
                result = None
                if call.action.name != "save":
                    key = call.action.key
                    changes[key], result = operate(call.action, changes.get(key, world.file.get(key)))
            except _FailedError as error:
                yield _with(world, "results", call, f"raised {error}")
                continue
            yield self._applied(world, call, step, changes, took, mine, result)
            left = {key for key in took if changes.get(key, world.file.get(key)) == world.file.get(key)}
            none = {key for key, base in zip(took, bases, strict=True) if mine[key] == base and key in left}
            if none and call.touched is None:
                others = {key: number for key, number in took.items() if key not in none}
                yield self._applied(world, call, step, changes, others, mine, result)

    def _applied(self, world, call, step, changes, took, mine, result):
        who = call.action.context
        after = _write(world, changes, step)
        own, known, reads, taken = dict(world.own), dict(world.known), dict(world.reads), dict(world.taken)
        for key in self._keys(call):
            place = who, key
            text = after.file.get(key)
            if text != world.file.get(key) or (key in took and text == mine[key]):
                own[place] = Own(text, call, step)
            known[place] = len(after.versions) - 1
            reads[place] = (*reads.get(place, ()), (known[place], step))
            if key in took:
                taken[place] = took[key], step
        results = {**world.results, call: f"returned {json.dumps(result)}"}
        return replace(after, own=own, known=known, reads=reads, taken=taken, results=results)

    def _merge(self, who, bases, mine, file):
        policy = self.policies[who]
        merged, conflicts = {}, []
        for key, base in bases.items():
            theirs = file.get(key)
            if mine[key] == base:
                continue
            if policy == "mine" or theirs in (base, mine[key]):
                merged[key] = mine[key]
            elif policy == "theirs":
                merged[key] = theirs
            elif policy == "raise":
                conflicts.append(key)
            else:
                merged[key] = decide(base, mine[key], theirs)
        if conflicts:
            raise _FailedError(f"ConflictError {sorted(conflicts)}")
        return merged

    def _loaded(self, world: World, load: Call, step: int) -> Iterator[World]:
        """Yield the worlds after a load took effect."""
        if load in world.loads:
            return
        who = load.action.context
        span = world.version_at(load.made), len(world.versions) - 1
        after = _with(world, "loads", load, span)
        certain, free = {}, []
        for key in self.keys:
            place = who, key
            if number := self._alive(world, place, step):
                if self.changes[place][number - 1].step > load.made:
                    free.append(place)
                else:
                    certain[place] = number
        for kept in itertools.product((False, True), repeat=len(free)):
            drops = dict(after.drops)
            dropped = {
                **certain,
                **{place: len(self.changes[place]) for place, keep in zip(free, kept, strict=True) if not keep},
            }
            for when in self._moments_of(step):
                then = {place: (*drops.get(place, ()), (number, when)) for place, number in dropped.items()}
                yield replace(after, drops={**drops, **then})

    def _reason(self, world: World, who: str, memory: dict[str, str], unsaved: set[str], *, saved: bool) -> str:
        """Return why a context's memory at rest is impossible in a world, or the empty string."""
        spans = [span for load, span in world.loads.items() if span and load.action.context == who]
        lowest = max((low for low, _ in spans), default=0)
        highest = max((high for _, high in spans), default=0)
        reasons = [
            self._reason_if_read(world, version, who, memory, unsaved, saved=saved)
            for version in range(lowest, highest + 1)
        ]
        return "" if "" in reasons else reasons[-1]

    def _reason_if_read(self, world, read, who, memory, unsaved, *, saved) -> str:
        expected, reported = {}, set()
        for key in self.keys:
            place = who, key
            version = max(read, world.known[place])
            known = {world.versions[later].get(key) for later in self._same_cycle(world, version)}
            number = self._alive(world, place, NOWHERE)
            if number > world.taken.get(place, (0, 0))[0]:
                text = self.changes[place][number - 1].mine
                none = text in self._own_bases(world, None, place, self._known_before(world, place, number))
                if none and memory.get(key) in known:
                    text = memory.get(key)
                bases = known | self._bases(world, None, place, number)
                if bases != {text} and (text not in bases or key in unsaved):
                    reported.add(key)
            elif saved:
                text = world.file.get(key)
            else:
                text = memory.get(key) if memory.get(key) in known else world.versions[version].get(key)
            if text is not None:
                expected[key] = text
        if expected != memory or reported != unsaved:
            return f"{show(expected)}, unsaved {sorted(reported)}"
        return ""


def operate(action, text):
    """Return the effect of an atomic call or a transaction on a key: the new text, and the result."""
    if action.name == "incr":
        value = 0 if text is None else json.loads(text)
        if not isinstance(value, int):
            raise _FailedError("TypeError")
        return json.dumps(value + 1), value + 1
    if action.name == "add":
        return (text, False) if text is not None else (json.dumps(action.values[0]), True)
    if action.name == "swap":
        expected, new = (None if value is None else json.dumps(value) for value in action.values)
        return (new, True) if text == expected else (text, False)
    if action.name == "fail":
        raise _FailedError("ZeroDivisionError")
    value = None if text is None else json.loads(text)
    new = bump(value)
    return json.dumps(new), value if action.name == "tx" else new


def bump(value):
    """Return what the functions of ``mutate`` and transactions make of a value; None means that it is absent."""
    if value is None:
        return 100
    return value + 100 if isinstance(value, int) else [*value, "more"]


def decide(base, mine, theirs):
    """Return what the function ``ask`` makes of three texts: a text that contains all of them."""
    return json.dumps(["none" if text is None else json.loads(text) for text in (base, mine, theirs)])


def show(texts):
    return "{" + ", ".join(f"{key}: {text}" for key, text in sorted(texts.items())) + "}"


def _files(worlds):
    return ", or ".join(sorted({show(world.file) for world in worlds}))


def _with(world: World, name: str, key: Any, value: Any) -> World:
    return replace(world, **{name: {**getattr(world, name), key: value}})


def _write(world: World, changes: dict[str, str | None], step: int) -> World:
    file = {**world.file, **changes}
    file = {key: text for key, text in file.items() if text is not None}
    return replace(world, versions=(*world.versions, file), steps=(*world.steps, step))
