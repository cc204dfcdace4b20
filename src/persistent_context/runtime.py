"""The strategy layer: contexts that give tasks their own variables beside the persistent data.

A :class:`ContextManager` creates them, and their users decide when to save; :class:`PersistentContext` does the rest.
Import it by its name: ``from persistent_context.runtime import ContextManager``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, MutableMapping, Sequence
from typing import Any, Final, Unpack

from ._api.aio import PersistentContext
from ._api.options import Options

PERSISTENT_CONTEXT: Final = "persistent_context"
"""The name under which a context holds the persistent context itself."""


class Context(MutableMapping[str, Any]):
    """What a task sees: its runtime variables, those of the contexts it was forked from, and the persistent data.

    Names are looked up in this order, and set where they live: a key of the persistent data that no runtime variable
    hides is set in the memory of the persistent context, and ``await context["persistent_context"].save()`` saves it.
    Anything else becomes a runtime variable of this context alone, and is never saved. To make a new key persistent,
    set it in ``context["persistent_context"]``.

    Args:
        persistent: the persistent context.
        variables: the runtime variables; any values, even those that JSON cannot hold.
        inherited: the variables of the contexts that this one was forked from, nearest first.

    Raises:
        ValueError: a variable has the name ``persistent_context``.
    """

    def __init__(
        self, persistent: PersistentContext, variables: dict[str, Any], inherited: Sequence[dict[str, Any]] = ()
    ) -> None:
        for name in variables:
            _check_free(name)
        self._persistent = persistent
        self._variables = variables
        self._layers = (variables, *inherited)

    def fork(self, **variables: Any) -> Context:
        """Return a context for a subtask, over the same persistent data. Does not suspend.

        It sees the current variables of this context and sets its own: nothing that it sets is visible here, except
        for persistent keys.

        Args:
            variables: its own runtime variables, which hide those of the same name.

        Raises:
            ValueError: a variable has the name ``persistent_context``.
        """
        return Context(self._persistent, variables, self._layers)

    def __getitem__(self, key: str) -> Any:
        if key == PERSISTENT_CONTEXT:
            return self._persistent
        return self._home(key)[key]

    def __setitem__(self, key: str, value: Any) -> None:
        _check_free(key)
        home = self._home(key)
        if home is self._persistent and key in home:
            home[key] = value
        else:
            self._variables[key] = value

    def __delitem__(self, key: str) -> None:
        _check_free(key)
        home = self._home(key)
        if home is not self._variables and home is not self._persistent:
            msg = f"{key!r} belongs to the context that this one was forked from; delete it there"
            raise KeyError(msg)
        del home[key]

    def __iter__(self) -> Iterator[str]:
        return iter({PERSISTENT_CONTEXT: None, **{key: None for home in self._homes() for key in home}})

    def __contains__(self, key: object) -> bool:
        return key == PERSISTENT_CONTEXT or any(key in home for home in self._homes())

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        variables = sorted({key for layer in self._layers for key in layer})
        return f"<{type(self).__name__} with {', '.join(variables) or 'no variables'} over {self._persistent!r}>"

    def _homes(self) -> Sequence[MutableMapping[str, Any]]:
        """Return the mappings where names live, nearest first."""
        return (*self._layers, self._persistent)

    def _home(self, key: str) -> MutableMapping[str, Any]:
        """Return the mapping where a name lives: the persistent data, unless it is a runtime variable."""
        return next((layer for layer in self._layers if key in layer), self._persistent)


class ContextManager:
    """Creates contexts for tasks over one JSON file.

    Args:
        filepath: the file.
        options: those of :class:`PersistentContext`.
    """

    def __init__(self, filepath: str | os.PathLike[str], **options: Unpack[Options]) -> None:
        self._filepath = filepath
        self._options = options

    async def create_context(self, **variables: Any) -> Context:
        """Load the persistent data, and return a context over it. Suspends.

        Args:
            variables: the runtime variables of the context; they are never saved.

        Raises:
            ValueError: a variable has the name ``persistent_context``.
            OSError: as well as everything else that :meth:`PersistentContext.load` raises.
        """
        return Context(await PersistentContext.create(self._filepath, **self._options), variables)


def _check_free(name: str) -> None:
    if name == PERSISTENT_CONTEXT:
        msg = f"{PERSISTENT_CONTEXT!r} is reserved: it names the persistent context itself"
        raise ValueError(msg)
