"""Contexts that give tasks their own variables beside the persistent data.

A :class:`ContextManager` creates them, and their users decide when to save; :class:`PersistentContext` does the rest.
Import it from here: ``from persistent_context.runtime import ContextManager``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, MutableMapping, Sequence
from typing import Any, Final, NoReturn, Unpack

from ._api.aio import PersistentContext
from ._api.options import Options
from ._api.persistent_calls import PersistentCalls
from .errors import ContextUsageError

PERSISTENT_CONTEXT: Final = "persistent_context"
"""The name under which a context holds the persistent context itself."""


class Context(PersistentCalls, MutableMapping[str, Any]):
    """The names that a task sees: its runtime variables, those of the contexts it was forked from, and persistent data.

    Whether a name persists depends on its declaration alone, not on what the file holds. A *declared* name always
    belongs to the persistent data: ``context["cursor"] = 1`` sets it in the memory of the persistent context, and
    ``await context.save()`` saves it. Any other name that is set here becomes a runtime variable of this context, and
    is never saved.

    Undeclared names in the persistent data can be read here, but neither set nor deleted, since that would hide them or
    save them by accident. :meth:`set_persistent` and the atomic calls take any name except that of a runtime variable,
    which would hide the new value: they raise :class:`ContextUsageError`. Calls of the persistent context that read,
    change or watch the state can be made here, too.

    Args:
        persistent: the persistent context.
        names: the declared names.
        variables: the runtime variables; their values may be anything, even what JSON cannot hold.
        inherited: the variables of the contexts that this one was forked from, nearest first.

    Raises:
        ValueError: a variable has the name ``persistent_context``, or a declared one.
        ContextUsageError: the persistent data has the name of a variable.
    """

    def __init__(
        self,
        persistent: PersistentContext,
        names: frozenset[str],
        variables: dict[str, Any],
        inherited: Sequence[dict[str, Any]] = (),
    ) -> None:
        super().__init__(persistent)
        self._names = names
        self._variables = variables
        self._layers = (variables, *inherited)
        for name in variables:
            self._check_variable(name, inherited)

    def fork(self, **variables: Any) -> Context:
        """Return a context for a subtask, over the same persistent data. Does not suspend.

        It sees the current variables of this context and sets its own: what it sets is not visible here, except under
        persistent names.

        Args:
            variables: its own runtime variables, which hide those of the same name.

        Raises:
            ValueError: a variable has the name ``persistent_context``, or a declared one.
            ContextUsageError: the persistent data has the name of a variable.
        """
        return Context(self._persistent, self._names, variables, self._layers)

    # -------------------------------- the mapping

    def __getitem__(self, key: str) -> Any:
        if key == PERSISTENT_CONTEXT:
            return self._persistent
        return self._home(key)[key]

    def __setitem__(self, key: str, value: Any) -> None:
        if key in self._names:
            self._persistent[key] = value
        else:
            self._check_variable(key, self._layers)
            self._variables[key] = value

    def __delitem__(self, key: str) -> None:
        if key in self._names:
            del self._persistent[key]
            return
        if key not in self._variables:
            self._check_variable(key, self._layers)
            if any(key in layer for layer in self._layers):
                msg = f"{key!r} belongs to the context that this one was forked from: delete it there"
                raise ContextUsageError(msg).about(self._persistent.place)
        del self._variables[key]

    def popitem(self) -> NoReturn:
        """Raise ContextUsageError: the names are of three kinds, and have no last one."""
        self._refuse("popitem")

    def clear(self) -> NoReturn:
        """Raise ContextUsageError: it would delete persistent data along with the variables."""
        self._refuse("clear")

    def __iter__(self) -> Iterator[str]:
        homes = (*self._layers, self._persistent)
        return iter({PERSISTENT_CONTEXT: None, **{key: None for home in homes for key in home}})

    def __contains__(self, key: object) -> bool:
        return key == PERSISTENT_CONTEXT or any(key in home for home in (*self._layers, self._persistent))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        variables = sorted({key for layer in self._layers for key in layer})
        return f"<{type(self).__name__} with {', '.join(variables) or 'no variables'} over {self._persistent!r}>"

    def _refuse(self, method: str) -> NoReturn:
        msg = (
            f"{method}() is not possible here: delete names one by one, or call "
            f"context[{PERSISTENT_CONTEXT!r}].{method}() for the persistent data alone"
        )
        raise ContextUsageError(msg).about(self._persistent.place)

    # -------------------------------- the persistent data

    def set_persistent(self, key: str, value: Any) -> None:
        """Set a key of the persistent data, declared or not; :meth:`save` saves it. Does not suspend.

        Use this for names that are known only at run time, such as one for each job.

        Args:
            key: the key.
            value: the value.

        Raises:
            ValueError: the key is ``persistent_context``.
            ContextUsageError: the key is the name of a runtime variable, which would hide it.
            UnserializableValueError: the key is not a ``str``. The value is checked when it is saved.
        """
        self._persistent[self._visible(key)] = value

    # --------------------------------

    def _home(self, key: str) -> MutableMapping[str, Any]:
        """Return the mapping that has a name: the persistent data, unless it is a runtime variable."""
        return next((layer for layer in self._layers if key in layer), self._persistent)

    def _check_variable(self, name: str, layers: Iterable[dict[str, Any]]) -> None:
        """Refuse a name for a variable that would hide persistent data, unless one in the layers has it already."""
        _check_free(name)
        if name in self._names:
            msg = f"{name!r} is declared persistent, so it cannot be a runtime variable"
            raise ValueError(msg)
        if name in self._persistent and not any(name in layer for layer in layers):
            msg = (
                f"{name!r} is in the persistent data without being declared: declare it with "
                f"ContextManager(..., persistent=[{name!r}]), change it with set_persistent() or an atomic call, or "
                "use another name for the runtime variable"
            )
            raise ContextUsageError(msg).about(self._persistent.place)

    def _visible(self, key: str) -> str:
        """Return a key of the persistent data; refuse one that a runtime variable hides."""
        _check_free(key)
        if any(key in layer for layer in self._layers):
            msg = f"{key!r} is a runtime variable of this context, which would hide the persistent value: rename it"
            raise ContextUsageError(msg).about(self._persistent.place)
        return key


class ContextManager:
    """Creates contexts for tasks over one JSON file.

    Args:
        filepath: the file.
        persistent: the names that belong to the persistent data; all others that a context sets are runtime variables.
        options: those of :class:`PersistentContext`.

    Raises:
        TypeError: ``persistent`` is a ``str``, or contains something other than a ``str``.
        ValueError: ``persistent`` has the name ``persistent_context``.
    """

    def __init__(
        self, filepath: str | os.PathLike[str], *, persistent: Iterable[str] = (), **options: Unpack[Options]
    ) -> None:
        self._filepath = filepath
        self._names = _declared(persistent)
        self._options = options

    async def create_context(self, **variables: Any) -> Context:
        """Load the persistent data, and return a context over it. Suspends.

        Args:
            variables: the runtime variables of the context; they are never saved.

        Raises:
            ValueError: a variable has the name ``persistent_context``, or a declared one.
            ContextUsageError: the file has an undeclared key with the name of a variable.
            OSError: or any other exception that :meth:`PersistentContext.load` raises.
        """
        persistent = await PersistentContext.create(self._filepath, **self._options)
        return Context(persistent, self._names, variables)


def _declared(names: Iterable[str]) -> frozenset[str]:
    declared = frozenset([names] if isinstance(names, str) else names)
    if isinstance(names, str) or not all(isinstance(name, str) for name in declared):
        msg = f"persistent must be a collection of names, such as ['jobs', 'cursor'], not {names!r}"
        raise TypeError(msg)
    for name in declared:
        _check_free(name)
    return declared


def _check_free(name: object) -> None:
    if not isinstance(name, str):
        msg = f"a name must be a str, not {type(name).__name__}"
        raise TypeError(msg)
    if name == PERSISTENT_CONTEXT:
        msg = f"{PERSISTENT_CONTEXT!r} is reserved: it names the persistent context itself"
        raise ValueError(msg)
