"""Reconcilers: what a deployment has written, held against itself and against the log. They only read.

| file | what must agree |
|---|---|
| `ledger.py` | postings, and each account's own lots, debt and balance |
| `outbox.py` | alerts, and how each account's rules stand |
| `offsets.py` | every offset of the log, and the one outcome it left: lines, dead letter, command |
| `forwards.py` | what was forwarded, and the log of the partition that it was forwarded to |
| `rerate.py` | rated lines, and a second arithmetic that shares no code with the engine |
| `rated.py` | reads the topic `rated` beside the log |
| `run.py` | one partition, through all of them |
"""
