"""How a job runs: everything beside the flow itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypedDict

from flowrt.contract.errors import ConfigError
from flowrt.contract.retry import NoRestart, RetryStrategy
from flowrt.contract.scheduler import Scheduler
from flowrt.contract.snapshot import Delivery
from flowrt.contract.tracing import Tracer
from flowrt.contract.world import World
from flowrt.runtime.watchdog import Watchdog
from flowrt.runtime.world import system_world
from flowrt.schedulers.continuous import Continuous


class StartOptions(TypedDict, total=False):
    """The keyword arguments of `start` and `run`; what they mean stands in `JobOptions`."""

    checkpoints: str | Path | None
    delivery: Delivery | None
    scheduler: Scheduler
    restart: RetryStrategy
    restore: str | Path | None
    take_over: bool
    allow_dropped_state: Sequence[str]
    channel_capacity: int
    keep_checkpoints: int
    on_failure: Literal["cancel", "keep"]
    tracer: Tracer | None
    watchdog: Watchdog | None
    world: World


@dataclass(frozen=True)
class JobOptions:
    """How a job runs; `ConfigError` where two options do not fit.

    `checkpoints` is the folder that makes results survive a crash; without one nothing is kept and
    `delivery` is at_most_once. `restore` starts from a savepoint, into a checkpoint folder that
    holds nothing yet. `take_over` takes the folder from an instance that still seems to own it.
    `allow_dropped_state` names operators, or states as "operator.state", that the snapshot has and
    that may be let go.
    `channel_capacity` is in records, for each channel. `keep_checkpoints` is how many committed
    ones stay on disk. `tracer` follows some runs of records through the flow. `watchdog` warns of
    what blocks the event loop, or waits for long.
    """

    checkpoints: str | Path | None = None
    delivery: Delivery | None = None
    scheduler: Scheduler = field(default_factory=Continuous)
    restart: RetryStrategy = field(default_factory=NoRestart)
    restore: str | Path | None = None
    take_over: bool = False
    allow_dropped_state: Sequence[str] = ()
    channel_capacity: int = 2048
    keep_checkpoints: int = 2
    on_failure: Literal["cancel", "keep"] = "cancel"
    tracer: Tracer | None = None
    watchdog: Watchdog | None = None
    world: World = field(default_factory=system_world)

    def __post_init__(self) -> None:
        if self.delivery not in (None, "exactly_once", "at_least_once", "at_most_once"):
            raise ConfigError(
                f"delivery={self.delivery!r}: choose 'exactly_once', 'at_least_once' or "
                "'at_most_once'"
            )
        if self.checkpoints is None:
            self._check_without_checkpoints()
        elif str(self.checkpoints) == "":
            raise ConfigError("checkpoints='' is no folder: pass one, or leave it out")
        elif self.delivery == "at_most_once":
            raise ConfigError(
                "delivery='at_most_once' keeps no checkpoints: leave checkpoints=... out, or "
                "choose 'at_least_once' or 'exactly_once'"
            )
        if self.restore is not None and str(self.restore) == "":
            raise ConfigError("restore='' is no folder: pass one, or leave it out")
        if isinstance(self.allow_dropped_state, str):
            raise ConfigError("allow_dropped_state is a list of names of operators, not one text")
        if self.channel_capacity < 1:
            raise ConfigError("channel_capacity is in records and must be at least 1")
        if self.keep_checkpoints < 1:
            raise ConfigError("keep_checkpoints must be at least 1")
        if self.on_failure not in ("cancel", "keep"):
            raise ConfigError(f"on_failure={self.on_failure!r}: choose 'cancel' or 'keep'")

    def _check_without_checkpoints(self) -> None:
        needs = "needs a checkpoint folder: pass checkpoints=..."
        if self.delivery in ("exactly_once", "at_least_once"):
            raise ConfigError(
                f"delivery={self.delivery!r} {needs}, or delivery='at_most_once' if results may "
                "be lost in a crash"
            )
        if not isinstance(self.restart, NoRestart):
            raise ConfigError(f"restart=... {needs}")
        if self.restore is not None:
            raise ConfigError(f"restore=... {needs}")
        if self.take_over:
            raise ConfigError(f"take_over=True {needs}")

    @property
    def resolved_delivery(self) -> Delivery:
        """What was asked for, or what the checkpoint folder allows."""
        if self.delivery is not None:
            return self.delivery
        return "at_most_once" if self.checkpoints is None else "exactly_once"
