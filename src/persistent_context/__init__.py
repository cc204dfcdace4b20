"""A dictionary bound to one plain JSON file, safe and fast under many asyncio tasks, threads and processes."""

from ._context import PersistentContext
from ._errors import (
    ConflictError,
    ContextUsageError,
    DurabilityUnknownError,
    LockLostError,
    LockTimeoutError,
    NotARegularFileError,
    PersistentContextError,
    ReentrantTransactionError,
    TooManyDigitsError,
    UnserializableValueError,
)
from ._sync import SyncPersistentContext
from ._transaction import Transaction
from ._types import Change, Holder, Statistics
from ._values import MISSING

__all__ = [
    "MISSING",
    "Change",
    "ConflictError",
    "ContextUsageError",
    "DurabilityUnknownError",
    "Holder",
    "LockLostError",
    "LockTimeoutError",
    "NotARegularFileError",
    "PersistentContext",
    "PersistentContextError",
    "ReentrantTransactionError",
    "Statistics",
    "SyncPersistentContext",
    "TooManyDigitsError",
    "Transaction",
    "UnserializableValueError",
]
