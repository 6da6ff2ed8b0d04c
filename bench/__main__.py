"""`python -m bench [NAME ...]`: answers the questions, all of them or those named."""

from __future__ import annotations

import sys
from importlib import import_module

from bench.measure import pin_to_one_core

QUESTIONS = (
    "chain",
    "metrics_overhead",
    "word_count",
    "channel_hops",
    "async_calls",
    "checkpoint_cost",
    "snapshot_pause",
    "live_state",
    "slow_sink_memory",
    "latency",
    "drain",
    "slow_task",
    "watched_folder",
)


def main(names: list[str]) -> int:
    """Print one answer after the other."""
    unknown = sorted(set(names) - set(QUESTIONS))
    if unknown:
        print(f"no bench is named {', '.join(unknown)}; there are {', '.join(QUESTIONS)}")
        return 2
    pin_to_one_core()
    for name in names or QUESTIONS:
        print(import_module(f"bench.{name}").main(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
