"""One run of a program: its steps on real contexts and a real file, reported to the specification."""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import json
import os
from typing import Any

from persistent_context import MISSING, ConflictError, PersistentContext

from .ledger import Ledger
from .programs import CHANGES, OTHERS, Action, show
from .specification import Call, Change, Specification, ViolationError, bump
from .stepping import SteppedLoop

INITIAL = {"k": 1, "l": [1], "o": {"0": 1}}
TIMES = 1000


def memory_of(context: PersistentContext) -> dict[str, Any]:
    """Return what a context has in memory, whether it is loaded or not."""
    return context.get_all_data() if context._memory.is_loaded else dict(context._data)


class Run:
    """A running program; ``steps`` are the steps that are possible now, and ``do`` makes one.

    A step is a word: ``s`` starts the next action of the program, ``t`` turns the loop, ``j3`` runs job number 3,
    ``n3`` delivers the library's results of that job to the loop, and ``d3`` that the executor has finished it.
    """

    def __init__(self, program: tuple[Action, ...], policies: dict[str, str], path: str, *, grows: bool) -> None:
        self.program = program
        self.path = path
        self.schedule: list[str] = []
        self.log: list[str] = []
        self._next = 0
        self._clock = 0
        self._calls: list[Call] = []
        self._tasks: dict[Call, asyncio.Task[Any]] = {}
        self._outcomes: dict[Call, str] = {}
        self._told: dict[int, int] = {}
        self._ran: dict[int, int] = {}
        self.loop = SteppedLoop()
        self._write(INITIAL)
        keys = {*INITIAL, *(action.key for action in program if action.key)}
        initial = texts_of(INITIAL)
        self.specification: Ledger | Specification = (
            Ledger(policies, initial) if grows else Specification(policies, keys, initial)
        )
        self.contexts: dict[str, PersistentContext] = {}
        with self.loop.stepping():
            for name, policy in policies.items():
                context = self.contexts[name] = PersistentContext(
                    path, durable=False, on_conflict=ask if policy == "ask" else policy
                )
                self._drain(self.loop.create_task(context.load()))

    def steps(self) -> list[str]:
        """The possible next steps; if there are none, the run is at rest."""
        steps = ["t"] * bool(self.loop.ready)
        steps += [f"n{number}" for number in itertools.islice(self.loop.told, 1)]
        steps += [f"d{number}" for number in self.loop.done if number not in self.loop.told]
        steps += [f"j{number}" for number in self.loop.jobs]
        if self._next < len(self.program) and (self.program[self._next].name not in OTHERS or self._lock_is_free()):
            steps.append("s")
        return steps

    def touches(self, step: str) -> frozenset[str]:
        """Return what a step depends on: two steps that have nothing in common may be swapped."""
        if step == "t":
            return frozenset({"loop", "memory", "queue"})
        if step == "s":
            action = self.program[self._next]
            if action.name in OTHERS:
                return frozenset({"file", "program"})
            if action.name in CHANGES:
                return frozenset({"memory", "program"})
            return frozenset({"loop", "memory", "queue", "program"})
        if step[0] in "nd":
            return frozenset({"loop"})
        return frozenset({"file"} if self._is_reading(int(step[1:])) else {"file", "queue"})

    def do(self, step: str) -> None:
        """Make a step.

        Raises:
            ViolationError: what is observed then is not allowed.
        """
        self._clock += 1
        self.schedule.append(step)
        with self.loop.stepping():
            if step == "s":
                self._start(self.program[self._next])
            elif step == "t":
                self._turn()
            elif step.startswith("j"):
                self._job(int(step[1:]))
            else:
                self._arrive(step)
            self._see_what_is_over()

    def finish(self) -> None:
        """Check that nothing is left behind at rest, and then after a last save.

        Raises:
            ViolationError: memory, or the file, is wrong.
        """
        self._come_to_rest()
        with self.loop.stepping():
            for name in self.contexts:
                self._look(name)
        for name in self.contexts:
            with self.loop.stepping():
                self._clock += 1
                self._call(Action("save", name))
            self._come_to_rest()
            with self.loop.stepping():
                saved = self._outcomes[self._calls[-1]] == "returned null"
                self._look(name, saved=saved)

    def abandon(self) -> None:
        """Let a run that is no longer needed come to its end."""
        with self.loop.stepping():
            self._drain()

    def describe(self, problem: object) -> str:
        """Return all that is needed to understand a violation, and to repeat it."""
        policies = ", ".join(f"{name}: {policy}" for name, policy in self.specification.policies.items())
        log = "\n".join(f"    {line}" for line in self.log)
        facts = {"program": show(self.program), "policies": policies, "schedule": " ".join(self.schedule)}
        return "\n".join([str(problem), *(f"  {name}: {text}" for name, text in facts.items()), log])

    def _come_to_rest(self) -> None:
        for _ in range(TIMES):
            if steps := [step for step in self.steps() if step != "s"]:
                self.do(steps[0])
            elif not all(task.done() for task in self._tasks.values()) and self.loop.pass_time():
                self.log.append("    time passes")
            else:
                break
        stuck = [f"{call.action} (call {call.number})" for call, task in self._tasks.items() if not task.done()]
        if stuck:
            raise ViolationError(f"never completed: {', '.join(stuck)}")
        if self.loop.failures:
            raise ViolationError(f"the loop's exception handler was called: {self.loop.failures}")

    def _drain(self, task: asyncio.Task[Any] | None = None) -> None:
        for _ in range(TIMES):
            if self.loop.ready:
                self.loop.turn()
            elif self.loop.told:
                self.loop.tell(next(iter(self.loop.told)))
            elif self.loop.done:
                self.loop.end(next(iter(self.loop.done)))
            elif self.loop.jobs:
                self.loop.run_job(next(iter(self.loop.jobs)))
            else:
                break
        if task:
            task.result()

    def _start(self, action: Action) -> None:
        self._next += 1
        self.log.append(f"s   {action}")
        if action.name in OTHERS:
            self._edit(action)
        elif action.name == "cancel":
            if action.values[0] < len(self._calls):
                call = self._calls[action.values[0]]
                if self._tasks[call].cancel():
                    call.cancelled = True
        elif action.name in CHANGES:
            self._change(action)
        else:
            self._call(action)

    def _edit(self, action: Action) -> None:
        content = self._read()
        if action.name == "push":
            content[action.key].append(action.values[0])
        elif action.name == "put":
            content[action.key][str(action.values[0])] = action.values[0]
        else:
            content.pop(action.key, None)
            if action.values[0] is not None:
                content[action.key] = action.values[0]
        self._write(content)
        self.specification.edited(action.key, texts_of(content).get(action.key), self._clock)

    def _change(self, action: Action) -> None:
        context = self.contexts[action.context]
        before = texts_of(memory_of(context)).get(action.key)
        if action.name == "set":
            context.set(action.key, action.values[0])
        elif before is None or (action.name == "grow" and before[0] != "["):
            return
        elif action.name == "del":
            del context[action.key]
        elif action.name == "fill":
            context[action.key][str(action.values[0])] = action.values[0]
        else:
            context[action.key].append(action.values[0])
        mine = texts_of(memory_of(context)).get(action.key)
        change = Change(before, mine, self._clock)
        self.specification.changed(action.context, action.key, change, context.unsaved_keys())

    def _call(self, action: Action) -> None:
        call = Call(len(self._calls), action, self._clock)
        self._calls.append(call)
        self.specification.made(call)
        self._tasks[call] = self.loop.create_task(self._perform(call))
        self.loop.run_last()

    async def _perform(self, call: Call) -> None:
        try:
            result = await getattr(self, f"_{call.action.name}")(call, self.contexts[call.action.context])
        except asyncio.CancelledError:
            self._outcomes[call] = "raised CancelledError"
        except ConflictError as error:
            self._outcomes[call] = f"raised ConflictError {sorted(error.keys)}"
        except Exception as error:
            self._outcomes[call] = f"raised {type(error).__name__}"
            self.log.append(f"    {error}")
        else:
            self._outcomes[call] = f"returned {json.dumps(result)}"

    async def _save(self, _call, context):
        return await context.save()

    async def _refresh(self, _call, context):
        return await context.refresh()

    async def _append(self, call, context):
        return await context.append(call.action.key, call.action.values[0])

    async def _load(self, _call, context):
        return await context.load()

    async def _incr(self, call, context):
        return await context.incr(call.action.key)

    async def _add(self, call, context):
        return await context.add(call.action.key, call.action.values[0])

    async def _swap(self, call, context):
        expected, new = (MISSING if value is None else value for value in call.action.values)
        return await context.compare_and_set(call.action.key, expected, new)

    async def _mutate(self, call, context):
        return await context.mutate(call.action.key, bump)

    async def _fail(self, call, context):
        return await context.mutate(call.action.key, lambda _value: 1 // 0)

    async def _tx(self, call, context):
        async with context.transaction() as tx:
            try:
                call.touched = self._clock
                found = tx.get(call.action.key)
                self.log.append(f"    {call.action} sees {found}")
                tx[call.action.key] = bump(found)
                await asyncio.sleep(0)
            finally:
                call.body_over = True
        return found

    def _turn(self) -> None:
        arrived = [ran for ran, told in self._told.items() if ran not in self.specification.arrivals]
        self.specification.arrivals.update(dict.fromkeys(arrived, self._clock))
        self.log.append("t   the loop turns")
        self.loop.turn()
        if arrived:
            self.specification.turned(self._clock)

    def _job(self, number: int) -> None:
        name = self.loop.jobs[number].name
        self._ran[number] = self._clock
        self.loop.run_job(number)
        file = texts_of(self._read())
        self.log.append(f"j{number:<3}{name} runs: {json.dumps(file)}")
        self.specification.job_ran(self._clock, file)

    def _see_what_is_over(self) -> None:
        for call, outcome in list(self._outcomes.items()):
            if self._tasks[call].done() and call.over > self._clock:
                self.log.append(f"    {call.action} (call {call.number}) {outcome}")
                self.specification.is_over(call, outcome, self._clock)

    def _look(self, name: str, *, saved: bool = False) -> None:
        context = self.contexts[name]
        memory, unsaved = texts_of(memory_of(context)), context.unsaved_keys()
        self.specification.at_rest(name, memory, unsaved, saved=saved)

    def _arrive(self, step: str) -> None:
        number = int(step[1:])
        self._told.setdefault(self._ran[number], self._clock)
        if step.startswith("n"):
            self.log.append(f"{step:4}the loop gets the results of {number}")
            self.loop.tell(number)
        else:
            self.log.append(f"{step:4}the loop learns that {number} has finished")
            self.loop.end(number)

    def _is_reading(self, number: int) -> bool:
        return self.loop.jobs[number].name in {"_sync_load_internal", "_sync_refresh_internal"}

    def _lock_is_free(self) -> bool:
        try:
            fd = os.open(f"{self.path}.lock", os.O_RDWR)
        except FileNotFoundError:
            return True
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(fd)
        return True

    def _read(self) -> dict[str, Any]:
        with open(self.path, encoding="utf-8") as file:
            return json.load(file)

    def _write(self, content: dict[str, Any]) -> None:
        with open(self.path, "w", encoding="utf-8") as file:
            entries = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in content.items())
            file.write(f"{{\n{entries}\n}}\n" if entries else "{}\n")


def texts_of(values: dict[str, Any]) -> dict[str, str]:
    return {key: json.dumps(value, sort_keys=True) for key, value in values.items()}


def ask(_key, *sides):
    """Decide a conflict so that the result depends on each argument."""
    return ["none" if side is MISSING else side for side in sides]
