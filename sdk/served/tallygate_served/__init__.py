"""Says which request ran where and when, so that tallygate can say what it cost."""

from tallygate_served.openai_answers import Execution, UsageUnknown
from tallygate_served.records import BadRecord, GpuPart, ReplicaUp, Served, Status
from tallygate_served.sink import KafkaSink
from tallygate_served.who import Who, mark, unmark

__all__ = [
    "BadRecord",
    "Execution",
    "GpuPart",
    "KafkaSink",
    "ReplicaUp",
    "Served",
    "Status",
    "UsageUnknown",
    "Who",
    "mark",
    "unmark",
]
