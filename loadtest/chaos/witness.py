"""A second witness, heard beside the verifier and apart from it: what the engine's own proof makes of what a run left.

It is `tallygate reconcile` over everything, with each account rated again: the word of the engine on itself. Nothing that it
says can clear a run; but whoever runs it the morning after a fault must be told of no drift where there is none.
"""

from typing import Final

from actors.proofs import reconcile
from config.settings import Settings
from config.stack.supervisor import Say

EVERY_ACCOUNT: Final = 1.0
SAMPLE: Final = 20


async def drifts(settings: Settings, say: Say) -> list[str]:
    """What it finds to differ, as sentences; of each partition the first few. The shards must have handed over. It
    takes many minutes for a million records, so it says how far it is."""
    found = []

    def progress(said: str) -> None:
        say(f"reconcile: {said}")

    async for report in reconcile(settings, None, None, share=EVERY_ACCOUNT, seed=1, say=progress):
        found += [f"reconcile: {drift}" for drift in report.drifts[:SAMPLE]]
        if report.drift > SAMPLE:
            found.append(f"reconcile: partition {report.partition}: {report.drift} drifts in all")
    return found
