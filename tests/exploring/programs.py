"""The language of the programs: each action is a few words, such as ``a.set k 2; a.save; edit k 7; a.incr k``.

``a`` and ``b`` are contexts on one file, ``edit`` is a program that takes the lock and replaces one key (``edit k -``
deletes it), ``push l 7`` and ``put o 7`` are programs that append to a list or add to an object in the file, ``cancel
1`` cancels the second call. ``a.grow l 2`` and ``a.fill o 2`` change a list and an object in place.
"""

from __future__ import annotations

import json
import random
from typing import NamedTuple

CALLS = frozenset({"save", "load", "incr", "add", "swap", "mutate", "fail", "tx", "refresh", "append"})
CHANGES = frozenset({"set", "del", "grow", "fill"})
OTHERS = frozenset({"edit", "push", "put"})


class Action(NamedTuple):
    """One action of a program."""

    name: str
    context: str = ""
    key: str = ""
    values: tuple[object, ...] = ()

    def __str__(self) -> str:
        values = (json.dumps(value, separators=(",", ":")) if value is not None else "-" for value in self.values)
        return " ".join([f"{self.context}.{self.name}" if self.context else self.name, self.key, *values]).strip()


def parse(text: str) -> tuple[Action, ...]:
    """Return the actions of a program."""
    return tuple(_action(*words.split()) for words in text.split(";"))


def show(program: tuple[Action, ...]) -> str:
    """Return the text of a program."""
    return "; ".join(map(str, program)).replace("  ", " ")


def _action(name: str, *words: str) -> Action:
    context, _, verb = name.rpartition(".")
    if verb == "cancel":
        return Action(verb, values=(int(words[0]),))
    key, *values = words or ("",)
    return Action(verb, context, key, tuple(None if value == "-" else json.loads(value) for value in values))


_ACTIONS = {
    "set k {new}": 6,
    "set k 1": 3,
    "del k": 1,
    "save": 4,
    "load": 3,
    "incr k": 3,
    "add k {new}": 2,
    "swap k 1 {new}": 2,
    "swap k 1 -": 1,
    "mutate k": 2,
    "fail k": 1,
    "tx k": 3,
}
"""The actions of a context, and how often each is drawn."""
_OTHERS = {"edit k {new}": 5, "edit k -": 1, "cancel {call}": 2}
_GROWING = {"grow l {new}": 6, "fill o {new}": 2, "save": 5, "refresh": 2, "append l {new}": 2}
_OTHERS_GROWING = {"push l {new}": 3, "put o {new}": 1, "cancel {call}": 1}
_POLICIES = ("mine", "theirs", "raise", "ask")


def draw(
    order: random.Random, contexts: str = "a", *, longest: int = 5, grows: bool = False
) -> tuple[str, dict[str, str]]:
    """Return a random program, with at least two calls, and the policies of its contexts."""
    while True:
        length = order.randint(3, longest)
        chosen = [_draw_action(order, contexts, number, grows=grows) for number in range(length)]
        calls = [action for action in chosen if action.partition(".")[2].split()[:1] and parse(action)[0].name in CALLS]
        if len(calls) >= 2:
            return "; ".join(chosen), {name: order.choice(_POLICIES) for name in contexts}


def _draw_action(order: random.Random, contexts: str, number: int, *, grows: bool) -> str:
    others = _OTHERS_GROWING if grows else _OTHERS
    weights = (_GROWING if grows else _ACTIONS) | others
    action = order.choices(list(weights), list(weights.values()))[0]
    words = action.format(new=10 * (number + 2), call=order.randint(0, 1))
    return words if action in others else f"{order.choice(contexts)}.{words}"
