"""Which faults a seed brings, when, and at which step of a process they strike."""

from random import Random
from typing import Final

from msgspec import Struct

# Every step that a shard's process passes: before and after each effect, and each time it lets others run.
STORE_CALLS: Final = ("claim", "load", "commit", "settle_commit", "release", "record_deliveries", "catalogue")
LOG_CALLS: Final = ("bounds", "read_one", "fetch", "append", "append_slices")
MEMBERSHIP_CALLS: Final = ("register", "renew")
ROSTER_CALLS: Final = ("take_office", "stay_in_office", "members", "assign", "declare_dead")
OTHER_SITES: Final = ("yield", "encode", "sleep", "post.before", "post.after")

CRASH_SITES: Final = (
    tuple(f"{call}.{side}" for call in STORE_CALLS + LOG_CALLS + MEMBERSHIP_CALLS for side in ("before", "after"))
    + OTHER_SITES
)
# Where a long pause hurts most: an effect, or the right to one, that comes after a successor has begun.
ZOMBIE_SITES: Final = (
    *("encode", "yield", "renew.after"),
    *(f"{call}.before" for call in ("commit", "append", "append_slices", "post")),
)
ROSTER_SITES: Final = tuple(f"{call}.{side}" for call in ROSTER_CALLS for side in ("before", "after"))
REFUSAL_SITES: Final = tuple(f"{call}.before" for call in STORE_CALLS + MEMBERSHIP_CALLS + ROSTER_CALLS)
# The answer is lost, the effect is not. A lost answer to COMMIT has its own fault: `unknown_done`.
LOST_ANSWER_SITES: Final = tuple(
    f"{call}.after" for call in STORE_CALLS + MEMBERSHIP_CALLS + ROSTER_CALLS if call != "commit"
)
LOG_REFUSAL_SITES: Final = ("bounds.before", "bounds.after", "read_one.before", "read_one.after")
COMMIT_FAULTS: Final = ("unavailable", "unknown_done", "unknown_not_done", "unknown_late")
# What Postgres answers with, now and then, to one who writes.
SQL_FAULTS: Final = ("serialization", "deadlock")
SQL_SITES: Final = tuple(
    f"{call}.before" for call in ("claim", "commit", "settle_commit", "release", "record_deliveries", "renew", "assign")
)
APPEND_FAULTS: Final = ("append_none", "append_some", "append_all", "append_late")
LOG_DAMAGES: Final = ("log_truncated", "log_replaced", "log_expired")
WORLD_FAULTS: Final = (
    "broker_down",
    "database_down",
    "disk_full",
    "failover",
    "move",
    "stop",
    "kill_owner",
    "kill_all",
    "gap",
    "clock_jump",
    "host_jump",
    "receiver_away",
    *LOG_DAMAGES,
)

# What no seed features, and some draw in a lottery of its own.
DRAWN_APART: Final = ("fetch_lags", "lend", "lent_back")

# What must happen before a process passes a rare step at all.
COMPANIONS: Final = {
    "settle_commit": ("unknown_done", "commit.before"),
    "release": ("stop", ""),
    "claim": ("kill_owner", ""),
    "load": ("kill_owner", ""),
    "bounds": ("kill_owner", ""),
    "read_one": ("kill_owner", ""),
    "catalogue": ("kill_owner", ""),
    "register": ("kill_owner", ""),
    "assign": ("kill_owner", ""),
    "declare_dead": ("kill_owner", ""),
    "take_office": ("kill", "stay_in_office.before"),
}


class Strike(Struct):
    """One fault: from `at_s` on it waits for the first process to pass `site` (no site: it happens at once)."""

    at_s: float
    kind: str
    site: str = ""
    seconds: float = 0.0


def _featured() -> tuple[Strike, ...]:
    """Every fault at every step where it can strike."""
    pairs = [(kind, site) for kind in ("kill", "pause") for site in (*CRASH_SITES, *ROSTER_SITES)]
    pairs += [("refuse", site) for site in REFUSAL_SITES]
    pairs += [("lose_answer", site) for site in LOST_ANSWER_SITES]
    pairs += [("log_away", site) for site in LOG_REFUSAL_SITES]
    pairs += [(kind, "commit.before") for kind in COMMIT_FAULTS]
    pairs += [(kind, site) for kind in SQL_FAULTS for site in SQL_SITES]
    pairs += [("stale_image", "load.before"), ("fetch_again", "fetch.before")]
    pairs += [(kind, "append.before") for kind in APPEND_FAULTS]
    pairs += [(kind, "") for kind in WORLD_FAULTS]
    return tuple(Strike(0.0, kind, site) for kind, site in pairs)


FEATURED: Final = _featured()
STALE_S: Final = 1.2
LAG_SHARE: Final = 0.3  # of the seeds: a consumer is handed out nothing for a while, and answers meanwhile
LENDING_SEEDS: Final = 12  # in one of so many a partition goes to another while its owner hangs, and comes back
LENT_TIMES: Final = 2
AWAY_SHARE: Final = 0.5  # of the seeds with leases: the log is away while some end
FEATURED_TIMES: Final = 4  # a rare step may not be passed after the first time


def tells(seed: int) -> bool:
    """Whether its featured fault strikes who tells alerts: then there must be some to tell."""
    return FEATURED[seed % len(FEATURED)].site.startswith(("post.", "record_deliveries."))


def draw_strikes(random: Random, seconds: float, seed: int) -> list[Strike]:
    """The faults of a seed, in order of time: one that is featured, so that consecutive seeds have them all, and some
    of a few classes, so that not every class hides every other. Every tenth seed or so has none but the featured."""
    strikes: list[Strike] = []

    def add(strike: Strike) -> None:
        companion = COMPANIONS.get(strike.site.split(".")[0])
        if companion is not None:
            # A replica that stopped following a moment ago shows nothing old: commits must have come meanwhile.
            behind_s = STALE_S if strike.kind == "stale_image" else 0.0
            strikes.append(Strike(strike.at_s + behind_s, *companion))
        strikes.append(strike)

    featured = FEATURED[seed % len(FEATURED)]
    for number in range(FEATURED_TIMES):
        at_s = random.uniform(number, number + 1) * 0.9 * seconds / FEATURED_TIMES
        add(Strike(at_s, featured.kind, featured.site, _pause_s(random)))
    if random.random() < 0.9:
        classes = ["kill", "pause", "zombie", "refuse", "lose_answer", "commit", "append", "world", "roster", "log"]
        classes += ["sql", "read"]
        chosen = random.sample(classes, random.randint(1, len(classes)))
        for _ in range(random.randint(1, 12)):
            add(_draw(random, random.choice(chosen), random.uniform(0, seconds)))
    # A lottery of its own, so that it moves no other fault of any seed.
    lag = Random(f"a consumer that lags in seed {seed}")
    if lag.random() < LAG_SHARE:
        add(Strike(lag.uniform(0.2, 0.8) * seconds, "fetch_lags", "fetch.before", lag.uniform(1.0, 3.0)))
    lent = Random(f"a partition that is lent in seed {seed}")
    for _ in range(LENT_TIMES if seed % LENDING_SEEDS == 10 else 0):
        add(Strike(lent.uniform(0.1, 0.8) * seconds, "lend"))
    return sorted(strikes, key=lambda strike: strike.at_s)


def draw_log_away(seed: int, seconds: float) -> list[Strike]:
    """Of a seed in which gateways lease: the log is away for as long as a lease takes to end, in a share of them. A lottery
    of its own, as above."""
    away = Random(f"a log that is away in seed {seed}")
    if away.random() >= AWAY_SHARE:
        return []
    return [Strike(away.uniform(0.1, 0.9) * seconds, "broker_down", "", away.uniform(0.6, 1.6))]


def _draw(random: Random, kind: str, at_s: float) -> Strike:
    if kind == "kill":
        return Strike(at_s, "kill", random.choice(CRASH_SITES))
    if kind == "pause":
        return Strike(at_s, "pause", random.choice(CRASH_SITES), _pause_s(random))
    if kind == "zombie":
        return Strike(at_s, "pause", random.choice(ZOMBIE_SITES), random.uniform(2.0, 4.0))
    if kind == "roster":
        what = random.choice(["kill", "pause"])
        return Strike(at_s, what, random.choice(ROSTER_SITES), _pause_s(random))
    if kind == "refuse":
        return Strike(at_s, "refuse", random.choice(REFUSAL_SITES))
    if kind == "lose_answer":
        return Strike(at_s, "lose_answer", random.choice(LOST_ANSWER_SITES))
    if kind == "log":
        return Strike(at_s, "log_away", random.choice(LOG_REFUSAL_SITES))
    if kind == "commit":
        return Strike(at_s, random.choice(COMMIT_FAULTS), "commit.before", random.uniform(0.05, 2.0))
    if kind == "sql":
        return Strike(at_s, random.choice(SQL_FAULTS), random.choice(SQL_SITES))
    if kind == "read":
        return Strike(at_s, *random.choice([("stale_image", "load.before"), ("fetch_again", "fetch.before")]))
    if kind == "append":
        return Strike(at_s, random.choice(APPEND_FAULTS), "append.before", _pause_s(random))
    return Strike(at_s, random.choice(WORLD_FAULTS), "", random.uniform(0.1, 2.0))


def _pause_s(random: Random) -> float:
    """Shorter than a lease, about one, or long enough that a successor has been at work for a while."""
    return random.choice([random.uniform(0.05, 0.8), random.uniform(0.8, 2.0), random.uniform(2.0, 4.0)])
