"""A dictionary bound to one plain JSON file, safe and fast under many asyncio tasks, threads and processes."""

from ._api.aio import PersistentContext
from ._api.blocking import SyncPersistentContext
from ._api.transaction import Transaction
from ._model.values import MISSING
from .errors import (
    ConflictError,
    ContextUsageError,
    DurabilityUnknownError,
    JournalVersionError,
    LeaseHeldError,
    LockLostError,
    LockTimeoutError,
    NotARegularFileError,
    PersistentContextError,
    ReentrantTransactionError,
    TooManyDigitsError,
    UnserializableValueError,
)
from .types import Change, Holder, Lease, Statistics

__all__ = [
    "MISSING",
    "Change",
    "ConflictError",
    "ContextUsageError",
    "DurabilityUnknownError",
    "Holder",
    "JournalVersionError",
    "Lease",
    "LeaseHeldError",
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
