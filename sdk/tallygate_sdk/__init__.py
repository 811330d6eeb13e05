"""Ask tallygate before you spend, and report what was used."""

from tallygate_sdk.answers import (
    AccountBalance,
    Balance,
    Binding,
    Captured,
    Decision,
    Hold,
    Lease,
    Outcome,
    Price,
    RefusedEvent,
    Released,
    Reported,
    Running,
    Undecided,
)
from tallygate_sdk.async_client import AsyncClient
from tallygate_sdk.client import Client
from tallygate_sdk.errors import (
    BadEvent,
    BadKey,
    NotFound,
    Refused,
    SpoolBusy,
    SpoolFull,
    TallygateError,
    Unavailable,
)
from tallygate_sdk.leases import Admission, LeaseHolder
from tallygate_sdk.policy import CLOSED, OPEN, Budget, FailurePolicy, Overdraft
from tallygate_sdk.questions import Bound, Check, Usage
from tallygate_sdk.reporter import HttpSink, Reporter, Sink
from tallygate_sdk.smart_client import SmartClient
from tallygate_sdk.spool import Spool

__all__ = [
    "CLOSED",
    "OPEN",
    "AccountBalance",
    "Admission",
    "AsyncClient",
    "BadEvent",
    "BadKey",
    "Balance",
    "Binding",
    "Bound",
    "Budget",
    "Captured",
    "Check",
    "Client",
    "Decision",
    "FailurePolicy",
    "Hold",
    "HttpSink",
    "Lease",
    "LeaseHolder",
    "NotFound",
    "Outcome",
    "Overdraft",
    "Price",
    "Refused",
    "RefusedEvent",
    "Released",
    "Reported",
    "Reporter",
    "Running",
    "Sink",
    "SmartClient",
    "Spool",
    "SpoolBusy",
    "SpoolFull",
    "TallygateError",
    "Unavailable",
    "Undecided",
    "Usage",
]
