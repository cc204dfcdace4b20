"""A model of the contract: one file, three contexts' views of it in memory, and the effects of their calls."""

import copy
import json
import zlib
from dataclasses import dataclass, field
from typing import NamedTuple

import merging
from persistent_context import MISSING, ConflictError


class OnPurposeError(Exception):
    """Raised by the functions and blocks of this module."""


def canonical(value):
    """A text that distinguishes values: ``1``, ``1.0`` and ``True`` differ, the order of inner keys does not count.

    A value that JSON cannot hold counts as one that differs from all others as a whole.
    """
    return "MISSING" if value is MISSING else json.dumps(value, sort_keys=True, default=repr)


def texts(mapping):
    """Return the canonical text of each value."""
    return {key: canonical(value) for key, value in mapping.items()}


def value_of(text, default=None):
    """Return a new value for a canonical text."""
    return default if text is None else json.loads(text)


def decide(key, base, mine, theirs):
    """A policy in which deleting wins, and whose result depends on every argument."""
    if mine is MISSING:
        return MISSING
    return zlib.crc32(repr([key, *map(canonical, (base, mine, theirs))]).encode())


def grown(value):
    """Change a list or dictionary in place, and put another value into a list."""
    if isinstance(value, list):
        value.append(len(value))
    elif isinstance(value, dict):
        value[f"k{len(value)}"] = [True]
    else:
        return [value]
    return value


def refuse(value):
    """Change the copy that the function was given, then fail."""
    grown(value)
    raise OnPurposeError


FUNCTIONS = {"grown": grown, "refuse": refuse, "same": lambda value: value, "kind": lambda value: type(value).__name__}


@dataclass
class View:
    """What one context must have in memory, and what it last saw in the file, by key, as text."""

    policy: object
    memory: dict = field(default_factory=dict)
    base: dict = field(default_factory=dict)

    def unsaved(self):
        """The keys that differ."""
        return {key for key in {*self.memory, *self.base} if self.memory.get(key) != self.base.get(key)}

    def know(self, key, text):
        """Set memory and base to what the file holds."""
        for mapping in (self.memory, self.base):
            if text is None:
                mapping.pop(key, None)
            else:
                mapping[key] = text

    def merged(self, keys, theirs):
        """Return the merge of the unsaved changes of some keys with what others made of them."""
        result, conflicts = {}, set()
        for key in self.unsaved() & set(keys):
            sides = [value_of(mapping.get(key), MISSING) for mapping in (self.base, self.memory, theirs)]
            merged = merging.merge(*sides, "theirs" if self.policy == "theirs" else "mine")
            decided = merged.value
            if merged.conflicts and self.policy == "raise":
                conflicts.add(key)
            elif merged.conflicts and callable(self.policy):
                decided = self.policy(key, *sides)
            result[key] = None if decided is MISSING else canonical(decided)
        if conflicts:
            raise ConflictError(sorted(conflicts))
        return result


class Model:
    """The file and the views of three contexts, with the calls according to the contract, independent of src."""

    def __init__(self, policies):
        """Begin without a file."""
        self.views = [View(policy) for policy in policies]
        self.file = None  # its mapping in order, or None
        self.corrupt = None  # its bytes, if they are not a valid document
        self.aside = []  # the bytes of corrupt files that were moved
        self.writes = 0

    def run(self, who, call):
        """Make a call: return its outcome and the model after it, which is this one if it failed."""
        after = copy.deepcopy(self)
        try:
            result = getattr(after, call.name)(after.views[who], *call.arguments)
        except Exception as error:
            return failed(error), self
        return canonical(result), after

    def commit(self, changes, create=False):
        """Put texts into the file; a call that changes nothing writes nothing."""
        old = self.file or {}
        new = {**old, **changes}
        new = {key: text for key, text in new.items() if text is not None}
        if new != old or (create and self.file is None):
            self.writes += 1
            self.move_aside()
            self.file = new

    def move_aside(self):
        """Keep a corrupt file under another name."""
        if self.corrupt is not None:
            self.aside.append(self.corrupt)
            self.corrupt = None

    def load(self, view):
        """Set memory to what the file holds."""
        self.move_aside()
        view.memory, view.base = dict(self.file or {}), dict(self.file or {})

    def save(self, view):
        """Merge; a missing or corrupt file gets all of memory."""
        if self.file is None:
            self.commit(view.memory, create=True)
        else:
            self.commit(view.merged(view.unsaved(), self.file))
        view.memory, view.base = dict(self.file), dict(self.file)

    def refresh(self, view):
        """Take over others' changes, and keep what is unsaved; a missing or corrupt file changes nothing."""
        self.move_aside()
        if self.file is None:
            return
        unsaved = view.unsaved()
        for key in {*view.memory, *view.base, *self.file}:
            if key not in unsaved:
                view.know(key, self.file.get(key))
                continue
            sides = (value_of(mapping.get(key), MISSING) for mapping in (view.base, view.memory, self.file))
            for mapping, value in zip((view.memory, view.base), merging.rebase(*sides), strict=True):
                if value is MISSING:
                    mapping.pop(key, None)
                else:
                    mapping[key] = canonical(value)

    def _update(self, view, key, function):
        """Do an atomic operation, after including the unsaved change of its key."""
        theirs = self.file or {}
        before = {**theirs, **view.merged([key], theirs)}.get(key)
        text, result = function(before)
        self.commit({key: text})
        view.know(key, text)
        return result

    def incr(self, view, key, delta, default):
        """Add to a number."""

        def add(text):
            number = value_of(text, default)
            if isinstance(number, bool) or not isinstance(number, int | float):
                raise TypeError
            return canonical(number + delta), number + delta

        return self._update(view, key, add)

    def add(self, view, key, value):
        """Set a key that is absent."""
        return self._update(view, key, lambda text: (canonical(value), True) if text is None else (text, False))

    def compare_and_set(self, view, key, expected, new):
        """Replace a value that is as expected."""
        wanted, wish = (None if value is MISSING else canonical(value) for value in (expected, new))
        return self._update(view, key, lambda text: (wish, True) if text == wanted else (text, False))

    def mutate(self, view, key, function, default):
        """Replace a value by what a function returns."""

        def replace(text):
            value = FUNCTIONS[function](copy.deepcopy(value_of(text, default)))
            return canonical(value), value

        return self._update(view, key, replace)

    def delete(self, view, key):
        """Delete a key; return whether it was there."""
        return self._update(view, key, lambda text: (None, text is not None))

    def take(self, view, key, default):
        """Delete a key and return its value."""
        return self._update(view, key, lambda text: (None, value_of(text, default)))

    def append(self, view, key, item):
        """Append to a list, and return its length."""
        return self.extend(view, key, [item])

    def extend(self, view, key, items):
        """Append several items."""

        def add(text):
            value = value_of(text, [])
            if not isinstance(value, list):
                raise TypeError
            return (canonical(value + items) if items else text), len(value + items)

        return self._update(view, key, add)

    def transaction(self, view, steps, end):
        """Commit all changes, together with the unsaved changes of the keys that were touched."""
        committed = self.file or {}
        draft, touched, seen = dict(committed), set(), []
        for step, key, value in steps:
            if key not in touched:
                draft.update(view.merged([key], committed))
                touched.add(key)
            text = draft.get(key)
            seen.append("None" if text is None else text)
            if step == "set":
                draft[key] = canonical(value)
            elif step == "grow" and text is not None:
                draft[key] = canonical(grown(value_of(text)))
            elif step == "pop":
                draft[key] = None
        deleted = [key for key in committed if key in view.unsaved() - touched and key not in view.memory]
        for key in deleted:  # iteration touches them
            draft.update(view.merged([key], committed))
            touched.add(key)
        seen.append(sorted(key for key, text in draft.items() if text is not None))
        if end == "raise":
            raise OnPurposeError
        self.commit({key: draft.get(key) for key in touched})
        for key in touched:
            view.know(key, draft.get(key))
        return seen


class Call(NamedTuple):
    """A call of a context that accesses the file: a method, and its arguments."""

    name: str
    arguments: tuple = ()


def failed(error):
    """Return what is compared of an error."""
    return type(error), sorted(error.keys) if isinstance(error, ConflictError) else None
