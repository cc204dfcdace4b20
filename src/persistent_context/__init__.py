"""A dictionary bound to one plain JSON file, safe and fast under many asyncio tasks, threads and processes."""

from ._api.aio import PersistentContext
from ._api.aio_transaction import AsyncTransaction
from ._api.aio_watch import AsyncWatch
from ._api.blocking import SyncPersistentContext
from ._api.blocking_transaction import SyncTransaction
from ._api.blocking_watch import SyncWatch
from ._api.options import OnCorrupt, Options
from ._api.transaction import Transaction
from ._model.merge import OnConflict, Resolver
from ._model.values import MISSING, Missing
from .errors import (
    ConflictError,
    ContextUsageError,
    CorruptFileError,
    DurabilityUnknownError,
    JournalVersionError,
    LeaseHeldError,
    LockLostError,
    LockTimeoutError,
    NotARegularFileError,
    OutcomeUnknownError,
    PersistentContextError,
    ReentrantTransactionError,
    StoreLimitError,
    StoreUnavailableError,
    TooManyDigitsError,
    UnsavedInTransactionWarning,
    UnserializableContentError,
    UnserializableValueError,
)
from .types import Change, Holder, Lease, OpenTransaction, Statistics

__all__ = [
    "MISSING",
    "AsyncTransaction",
    "AsyncWatch",
    "Change",
    "ConflictError",
    "ContextUsageError",
    "CorruptFileError",
    "DurabilityUnknownError",
    "Holder",
    "JournalVersionError",
    "Lease",
    "LeaseHeldError",
    "LockLostError",
    "LockTimeoutError",
    "Missing",
    "NotARegularFileError",
    "OnConflict",
    "OnCorrupt",
    "OpenTransaction",
    "Options",
    "OutcomeUnknownError",
    "PersistentContext",
    "PersistentContextError",
    "ReentrantTransactionError",
    "Resolver",
    "Statistics",
    "StoreLimitError",
    "StoreUnavailableError",
    "SyncPersistentContext",
    "SyncTransaction",
    "SyncWatch",
    "TooManyDigitsError",
    "Transaction",
    "UnsavedInTransactionWarning",
    "UnserializableContentError",
    "UnserializableValueError",
]
