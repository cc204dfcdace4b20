"""Random histories of three contexts and other programs on one file, step by step against a model of the contract."""

import asyncio
import copy
import inspect
import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from journals import journal_of, open_store
from persistent_context import MISSING, PersistentContext, SyncPersistentContext, UnserializableValueError
from statemodel import FUNCTIONS, Call, Model, OnPurposeError, View, canonical, decide, failed, grown, texts, value_of

KEYS = ["", "a", "é", '日本\n"\u2028']
LAYOUTS = [{"indent": 3}, {"separators": (",", ":")}, {"ensure_ascii": False, "indent": "\t"}]
CORRUPT = [b'{\n"a": 1,\n"b": [2,', b"[1]\n", b'{"a": NaN}', b"\xff\xfe{}", b'{"a": 1} {"a": 2}']


def work(tx, steps, end):
    """The body of a transaction; returns what it saw."""
    seen = []
    for step, key, value in steps:
        seen.append(canonical(tx[key]) if key in tx else "None")
        if step == "set":
            tx[key] = copy.deepcopy(value)
        elif step == "grow" and key in tx:
            tx[key] = grown(tx[key])
        elif step == "pop":
            tx.pop(key, None)
    seen.append(sorted(tx))
    if end == "raise":
        raise OnPurposeError
    return seen


async def work_async(ctx, steps, end):
    """A transaction that lets other tasks run during its body."""
    async with ctx.transaction() as tx:
        await asyncio.sleep(0)
        return work(tx, steps, end)


def work_sync(ctx, steps, end):
    """A transaction."""
    with ctx.transaction() as tx:
        return work(tx, steps, end)


def readable(ctx):
    """Return a context, or its live dictionary while it is not loaded and cannot be read."""
    return ctx if ctx._memory.is_loaded else ctx._data


def memory_of(ctx):
    """Return what a context has in memory, whether it is loaded or not."""
    return dict(readable(ctx))


def begin(ctx, call):
    """Make a call; return its result, or its coroutine."""
    arguments = copy.deepcopy(call.arguments)
    if call.name == "transaction":
        return (work_async if isinstance(ctx, PersistentContext) else work_sync)(ctx, *arguments)
    if call.name == "mutate":
        key, function, default = arguments
        arguments = key, FUNCTIONS[function], default
    return getattr(ctx, call.name)(*arguments)


async def outcome_of(ctx, call):
    """Make a call; return what it returned or raised."""
    try:
        result = begin(ctx, call)
        return canonical(await result if inspect.isawaitable(result) else result)
    except Exception as error:
        return failed(error)


keys = st.sampled_from(KEYS)
who = st.integers(0, 2)
numbers = st.sampled_from([0, 1, -1, 1.0, -0.5, 7, 2**53 + 1])
alike = st.sampled_from([None, True, False, 0, 1, 1.0, 0.0, -0.0, "", "1", [], {}, [1], [True], {"é": 1.0}])
scalars = st.none() | st.booleans() | st.integers() | st.integers(2**63, 2**200) | st.floats(-1e300, 1e300) | st.text()
nested = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3))
values = alike | alike | nested | st.just([1, [2, {"deep": []}]])
maybe = st.just(MISSING) | values
mappings = st.dictionaries(keys, values, max_size=4)
steps = st.lists(st.tuples(st.sampled_from(["look", "set", "grow", "pop"]), keys, values), max_size=4)
increments = st.builds(lambda *given: Call("incr", given), keys, numbers, numbers)
adds = st.builds(lambda *given: Call("add", given), keys, values)
swaps = st.builds(lambda *given: Call("compare_and_set", given), keys, maybe, maybe)
mutations = st.builds(lambda *given: Call("mutate", given), keys, st.sampled_from(sorted(FUNCTIONS)), values)
transactions = st.builds(
    lambda *given: Call("transaction", given), steps, st.sampled_from(["commit", "commit", "raise"])
)
deletions = st.builds(lambda *given: Call("delete", given), keys)
takes = st.builds(lambda *given: Call("take", given), keys, st.sampled_from([None, 5]))
appends = st.builds(lambda *given: Call("append", given), keys, values)
extensions = st.builds(lambda *given: Call("extend", given), keys, st.lists(values, max_size=2))
saves, loads = st.sampled_from([Call("save"), Call("save"), Call("refresh")]), st.just(Call("load"))
updates = increments | adds | swaps | mutations | deletions | takes | appends | extensions
edits = {
    "mapping": mappings,
    "gone": st.sets(keys, max_size=2),
    "layout": st.sampled_from(LAYOUTS),
    "mark": st.booleans(),
}
contents = st.sampled_from([None, None, *CORRUPT])
policies = st.sampled_from(["mine", "mine", "theirs", "raise", decide])


class Contexts(RuleBasedStateMachine):
    """Two contexts of one event loop, a blocking one, other programs, and the model they must agree with."""

    also = ()
    """Other files that may be beside the file."""

    def __init__(self, directory):
        """Begin without a file."""
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(dir=directory))
        self.path = self.directory / "state.json"
        self.runner = asyncio.Runner()
        self.contexts = []
        self.deleted = set()  # keys that were there, and may come last when set again

    @initialize(policies=st.tuples(policies, policies, policies), durable=st.sampled_from([False] * 7 + [True]))
    def make(self, policies, durable):
        """Open all three."""
        self.model = Model(policies)
        self.durable = durable
        self.remember(None)
        self.contexts = [self.new(number) for number in range(3)]
        for ctx in self.contexts:  # else lists and objects that they set would replace those in the file
            loading = ctx.load()
            if loading is not None:
                self.runner.run(loading)

    def new(self, number, **options):
        """Return a context that has not loaded."""
        kind = SyncPersistentContext if number == 2 else PersistentContext
        return kind(self.path, durable=self.durable, on_conflict=self.model.views[number].policy, **options)

    def teardown(self):
        """Close the loop and what runs on it."""
        self.runner.close()
        shutil.rmtree(self.directory)

    def call(self, number, call):
        """Make a call, and compare what it returns or raises."""
        self.note_deletions(call)
        if number == 2:
            try:
                outcome = canonical(begin(self.contexts[number], call))
            except Exception as error:
                outcome = failed(error)
        else:
            outcome = self.runner.run(outcome_of(self.contexts[number], call))
        expected, self.model = self.model.run(number, call)

        assert expected == outcome
        self.all_is_as_in_the_model()

    def note_deletions(self, call):
        """Record which keys a call deletes, and may set again."""
        if call.name == "transaction":
            self.deleted |= {key for step, key, _ in call.arguments[0] if step == "pop"}
        elif call.name in {"delete", "take"}:
            self.deleted.add(call.arguments[0])

    # Memory

    @rule(number=who, key=keys, value=st.just(MISSING) | values)
    def set_or_delete(self, number, key, value):
        """Set or delete a key."""
        self.put(number, key, value)

    @rule(number=who, key=keys)
    def change_in_place(self, number, key):
        """Change the live value of a key."""
        memory, live = self.model.views[number].memory, readable(self.contexts[number]).get(key, MISSING)

        assert value_of(memory.get(key), MISSING) == live
        if isinstance(live, list | dict):
            grown(live)
            memory[key] = canonical(grown(value_of(memory[key])))

    def put(self, number, key, value):
        """Set or, with MISSING, delete a key."""
        ctx, memory = self.contexts[number], self.model.views[number].memory
        if value is not MISSING:
            ctx.set(key, copy.deepcopy(value))
            memory[key] = canonical(value)
        elif key in memory:
            self.deleted.add(key)
            del ctx[key]
            del memory[key]
        else:
            with pytest.raises(KeyError):
                del readable(ctx)[key]

    @rule(number=who, key=keys, default=values)
    def pop(self, number, key, default):
        """Pop a key that may be absent."""
        self.deleted.add(key)
        popped = readable(self.contexts[number]).pop(key, default)

        assert canonical(value_of(self.model.views[number].memory.pop(key, None), default)) == canonical(popped)

    @rule(number=who, key=keys, value=values)
    def set_default(self, number, key, value):
        """Set a key that may be there already."""
        found = readable(self.contexts[number]).setdefault(key, copy.deepcopy(value))

        assert self.model.views[number].memory.setdefault(key, canonical(value)) == canonical(found)

    @rule(number=who, mapping=mappings)
    def update(self, number, mapping):
        """Set several keys, each to a different object."""
        self.contexts[number].update({key: copy.deepcopy(value) for key, value in mapping.items()})
        self.model.views[number].memory.update(texts(mapping))

    @rule(number=who)
    def clear(self, number):
        """Delete all keys."""
        self.deleted |= self.model.views[number].memory.keys()
        readable(self.contexts[number]).clear()
        self.model.views[number].memory.clear()

    # The file

    @rule(number=who, call=saves)
    def save(self, number, call):
        """Save; unchanged values stay the same objects, and so do changed lists and dictionaries."""
        ctx = self.contexts[number]
        before = {key: (ctx[key], text) for key, text in self.model.views[number].memory.items()}
        self.call(number, call)
        after = self.model.views[number].memory

        assert [] == [
            key
            for key, (live, text) in before.items()
            if key in after and ctx[key] is not live
            if after[key] == text or type(live) is type(ctx[key]) in {list, dict}
        ]

    @rule(number=who, call=loads)
    def load(self, number, call):
        """Load."""
        self.call(number, call)

    @rule(number=who, call=updates)
    def change_atomically(self, number, call):
        """Do an atomic operation on one key."""
        self.call(number, call)

    @rule(
        numbers=st.permutations(range(3)),
        key=keys,
        base=maybe,
        theirs=maybe,
        mine=maybe,
        agree=st.booleans(),
        data=st.data(),
    )
    def quarrel(self, numbers, key, base, theirs, mine, agree, data):
        """One context changes a key that another one has changed, and writes it to the file by any of the calls."""
        first, second, _ = numbers
        self.put_and_save(first, key, base)
        self.call(second, Call("load"))
        self.put_and_save(first, key, theirs)
        self.put(second, key, theirs if agree else mine)
        step = data.draw(st.sampled_from(["look", "set", "grow", "pop"]))
        self.call(
            second,
            data.draw(
                saves
                | st.just(Call("transaction", ([(step, key, 1)], data.draw(st.sampled_from(["commit", "raise"])))))
                | st.builds(lambda call: Call(call.name, (key, *call.arguments[1:])), updates)
            ),
        )

    @rule(number=who, value=st.sampled_from([True, False, 1, 0.5, 2**70, "1", None]), call=increments)
    def count(self, number, value, call):
        """Add to a value that may be a number, and is not saved yet."""
        self.put(number, call.arguments[0], value)
        self.call(number, call)

    def put_and_save(self, number, key, value):
        """Load, change one key and save."""
        self.call(number, Call("load"))
        if value is not MISSING or key in self.model.views[number].memory:
            self.put(number, key, value)
        self.call(number, Call("save"))

    @rule(number=who, call=transactions)
    def transact(self, number, call):
        """Commit a transaction, or leave it by an exception."""
        self.call(number, call)

    @rule(number=who, key=keys, value=st.sampled_from([float("nan"), (1,), [{1: 2}], {1, 2}, "\ud800"]))
    def save_what_json_cannot_hold(self, number, key, value):
        """A save with an impossible value fails as a whole, and leaves everything unsaved."""
        ctx, memory = self.contexts[number], self.model.views[number].memory
        ctx[key] = value
        outcome = self.runner.run(outcome_of(ctx, Call("save")))

        assert issubclass(outcome[0], UnserializableValueError)
        assert key in ctx.unsaved_keys()
        self.deleted.add(key)
        del ctx[key]
        memory.pop(key, None)

    @rule(numbers=st.permutations(range(3)), key=keys, base=maybe, theirs=maybe, mine=values)
    def correct_what_json_cannot_hold(self, numbers, key, base, theirs, mine):
        """While a context has an impossible value, others change the key; then it is corrected, and saved."""
        first, second, _ = numbers
        self.put_and_save(first, key, base)
        self.call(second, Call("load"))
        self.put(second, key, {1, 2})
        self.put_and_save(first, key, theirs)
        self.call(second, Call("refresh"))
        self.put(second, key, mine)
        self.call(second, Call("save"))

    @rule(calls=st.lists(st.tuples(st.integers(0, 1), updates), min_size=2, max_size=5, unique_by=lambda c: c[1][1][0]))
    def change_together(self, calls):
        """Concurrent atomic operations of several tasks, on one key each, all get their own outcomes."""

        async def gather():
            return await asyncio.gather(*(outcome_of(self.contexts[number], call) for number, call in calls))

        outcomes = self.runner.run(gather())
        expected = []
        for number, call in calls:
            outcome, self.model = self.model.run(number, call)
            expected.append(outcome)

        assert expected == outcomes

    @rule(number=st.integers(0, 1), call=updates | transactions | saves | loads, turns=st.integers(0, 30))
    def cancel(self, number, call, turns):
        """A call that is cancelled while it runs has all of its effect or none."""

        async def cancelled():
            task = asyncio.create_task(outcome_of(self.contexts[number], call))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            return None if task.cancelled() else task.result()

        self.note_deletions(call)
        outcome = self.runner.run(cancelled())
        expected, after = self.model.run(number, call)

        assert outcome in (None, expected)
        if outcome is not None or self.differences(self.model):
            self.model = after

    # Other programs

    @rule(number=who)
    def crash(self, number):
        """A context is lost with all its unsaved changes, and a new one takes its place."""
        self.model.views[number] = View(self.model.views[number].policy)
        self.contexts[number] = self.new(number)
        self.call(number, Call("load"))

    @rule(**edits)
    def edit(self, mapping, gone, layout, mark):
        """Another program adds, changes and removes keys, and writes the file in another layout."""
        file = {key: value_of(text) for key, text in (self.model.file or {}).items() if key not in gone} | mapping
        self.path.write_text(json.dumps(file, **layout), encoding="utf-8-sig" if mark else "utf-8")
        self.model.file, self.model.corrupt = texts(file), None
        self.remember(self.look())

    @rule(content=contents)
    def spoil(self, content):
        """The file is deleted, or another program leaves a broken one."""
        self.path.unlink(missing_ok=True)
        if content is not None:
            self.path.write_bytes(content)
        self.model.file, self.model.corrupt = None, content
        self.remember(self.look())

    @rule()
    def delete_the_lock_file(self):
        """The lock file is deleted between two calls."""
        Path(f"{self.path}.lock").unlink(missing_ok=True)

    # Invariants

    def look(self):
        """Return what identifies one version of the file, or None without a file."""
        if not self.path.exists():
            return None
        status = self.path.stat()
        return status.st_ino, status.st_mtime_ns, self.path.read_bytes()

    def settle(self):
        """Find out whether a call that wrote nothing has moved a corrupt file aside: it may or may not."""
        if not self.path.exists():
            self.model.move_aside()

    def differences(self, model):
        """Return where the contexts and the file differ from a model."""
        found = [
            (number, memory_of(ctx), ctx.unsaved_keys(), view)
            for number, (ctx, view) in enumerate(zip(self.contexts, model.views, strict=True))
            if texts(memory_of(ctx)) != view.memory or ctx.unsaved_keys() != view.unsaved()
        ]
        content = self.stored()
        if content is None or content in CORRUPT:
            if model.file is not None or content not in (None, model.corrupt):
                found.append(("file", content, model.file))
        elif texts(content) != model.file:
            found.append(("file", content, model.file))
        return found

    def stored(self):
        """Return what is stored: a mapping, the bytes of a corrupt file, or None."""
        content = self.path.read_bytes() if self.path.exists() else None
        return content if content is None or content in CORRUPT else json.loads(content.decode("utf-8-sig"))

    @invariant()
    def all_is_as_in_the_model(self):
        """All values, all unsaved keys and the committed mapping are as in the contract."""
        if self.contexts:
            assert [] == self.differences(self.model)
            self.settle()
            identity = self.look()
            self.the_file_is_written_when_it_changes(identity)
            self.nothing_lies_about()

    def the_file_is_written_when_it_changes(self, identity):
        """A call that changes nothing leaves the file alone; any other writes one key per line, with new ones last."""
        if identity is None or self.model.writes == self.writes:
            assert identity in (None, self.identity)
        else:
            text = identity[2].decode()
            order = list(json.loads(text))
            stay = [key for key in self.order if key in order and key not in self.deleted]
            lines = text.removeprefix("{\n").removesuffix("\n}\n").split(",\n") if order else []

            assert stay == [key for key in order if key not in self.deleted][: len(stay)]
            assert text == ("{\n" + ",\n".join(lines) + "\n}\n" if order else "{}\n")
            assert not any("\n" in line for line in lines)
            assert [[key] for key in order] == [list(json.loads(f"{{{line}}}")) for line in lines]
            assert all(line.startswith(json.dumps(key, ensure_ascii=False) + ": ") for key, line in zip(order, lines))
        self.remember(identity)

    def remember(self, identity):
        """Compare the next version of the file with this one."""
        self.identity, self.writes = identity, self.model.writes
        self.order = [] if self.model.file is None else list(self.stored())

    def nothing_lies_about(self):
        """Beside the file are its lock and the corrupt files that were moved aside, and none of those is lost."""
        aside = [one.read_bytes() for one in self.directory.glob("state.json.corrupt-*")]
        others = {name for name in os.listdir(self.directory) if not name.startswith("state.json.corrupt-")}

        assert sorted(self.model.aside) == sorted(aside)
        assert others <= {"state.json", "state.json.lock", *self.also}


class JournaledContexts(Contexts):
    """The same, on a file whose journal is begun, ended and folded at any time; the model ignores the journal."""

    also = ("state.json.journal",)
    was_replaced = False
    """Whether another program has replaced the JSON file since a call wrote."""

    @rule(number=who, journal=st.sampled_from([True, True, False]), load=st.booleans())
    def switch(self, number, journal, load):
        """Make the next call that writes begin a journal, or end it."""
        self.model.views[number] = View(self.model.views[number].policy)
        self.contexts[number] = self.new(number, journal=journal)
        self.call(number, Call("load"))
        if not load:  # so that its option takes effect
            self.call(number, Call("incr", (KEYS[0] + "switched", 1, 0)))

    @rule(number=who)
    def fold(self, number):
        """A checkpoint changes nothing but the JSON file, which then has everything."""
        result = self.contexts[number].checkpoint()
        if result is not None:
            self.runner.run(result)
        self.settle()

        assert self.stored() == super().stored()
        self.remember(self.look())

    @rule(**edits)
    def edit(self, **arguments):
        """Another program reads the JSON file and replaces it, so that file is brought up to date before."""
        self.fold(2)
        self.was_replaced = True
        super().edit(**arguments)

    @rule(content=contents)
    def spoil(self, content):
        """The file is brought up to date before, since changes in the journal would survive."""
        self.fold(2)
        self.was_replaced = True
        super().spoil(content)

    def look(self):
        """Return what identifies one state of both files, or None without any."""
        if not self.path.exists():
            return None
        journal = journal_of(self.path)
        return super().look(), journal.read_bytes() if journal.exists() else None

    def stored(self):
        """Return what a new process reads."""
        content = super().stored()
        if isinstance(content, bytes):
            return content
        snapshot = open_store(self.path, journal=None).snapshot()
        entries = {key: json.loads(bytes(text)) for part in snapshot.parts() for key, text in part.items()}
        return entries if snapshot.exists else None

    def the_file_is_written_when_it_changes(self, identity):
        """A call that changes nothing writes nothing, unless it begins or ends the journal; new keys come last."""
        changes = identity is not None and self.model.writes != self.writes
        if changes:
            order = list(self.stored())
            stay = [key for key in self.order if key in order and key not in self.deleted]

            assert stay == [key for key in order if key not in self.deleted][: len(stay)]
        elif self.was_replaced and identity != self.identity:  # the journal is begun anew
            self.was_replaced = False
        elif identity is not None and identity[1] is not None and self.identity is not None and self.identity[1]:
            assert identity == self.identity
        self.remember(identity)


@pytest.mark.timeout(900)  # --thorough
@pytest.mark.parametrize("kind", [Contexts, JournaledContexts])
def test_contexts_do_what_the_model_of_the_contract_does(tmp_path, request, caplog, nobody_folds, kind):
    """After any operations on one file, in any order, memory, file and results are as promised."""
    caplog.set_level("ERROR")  # the warnings about corrupt files would clutter the history that a failure prints
    thorough = request.config.getoption("--thorough")
    run_state_machine_as_test(
        lambda: kind(tmp_path),
        settings=settings(
            max_examples=600 if thorough else 60,
            stateful_step_count=50 if thorough else 30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
