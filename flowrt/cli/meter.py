"""What there is to say about a running job at one moment, and each part of it as text. No I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from flowrt.contract.elements import MAX_TIMESTAMP, MIN_TIMESTAMP
from flowrt.contract.plural import plural
from flowrt.runtime.status import ENDED, JobMetrics, JobState, JobStatus

WINDOW_SECONDS: Final = 2.0
"""The rate shown is that of so long ago until now."""

HISTORY: Final = 30
"""How many rates are kept for the little curve."""

NOTHING: Final = "–"

Lag = Mapping[str, tuple[int, str]]
"""What each source has still to read, by its id, and the unit."""

_BARS: Final = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class View:
    """A job at one moment: `seconds` from the command's start, `rate` in records a second."""

    name: str
    state: JobState
    epoch: int | None
    records: int
    rate: float
    watermark: int | None
    lag: Lag
    seconds: float
    history: tuple[float, ...] = ()
    bottleneck: str | None = None
    """The operator for which the others wait."""


class Meter:
    """Derives rates from counters; told the time, it has no clock."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()
        self._history: deque[float] = deque(maxlen=HISTORY)
        self._watermark: int | None = None
        self._first: tuple[float, int] | None = None

    def view(self, status: JobStatus, metrics: JobMetrics, lag: Lag, seconds: float) -> View:
        """Return what is to be shown; `seconds` must not go back."""
        rate = self._rate(metrics.records_in, seconds, status.state)
        if status.state not in ENDED:
            self._history.append(rate)
        if metrics.watermark is not None:  # none at the end: the last one says more
            self._watermark = metrics.watermark
        return View(
            status.name,
            status.state,
            status.epoch,
            metrics.records_in,
            rate,
            self._watermark,
            lag,
            seconds,
            tuple(self._history),
            None if metrics.bottleneck is None else metrics.bottleneck.operator,
        )

    def _rate(self, records: int, seconds: float, state: JobState) -> float:
        seen = self._seen
        if seen and records < seen[-1][1]:
            seen.clear()  # a restart counts again from its snapshot
        if state != "starting":  # what an earlier life read was not read just now
            seen.append((seconds, records))
            self._first = self._first or seen[0]
        while len(seen) > 2 and seconds - seen[1][0] >= WINDOW_SECONDS:
            seen.popleft()
        since, before = seen[0] if seen else (seconds, records)
        if state in ENDED and self._first is not None:
            since, before = self._first  # at the end: over all
        return max(records - before, 0) / (seconds - since) if seconds > since else 0.0


# ------------------------------------------------------------------------------------ as text


def count_text(count: float) -> str:
    """Return a number with thousands parted."""
    return f"{count:,.0f}"


def records_text(count: int) -> str:
    """Return a number of records."""
    return f"{count_text(count)} {plural(count, 'record')}"


def time_text(seconds: float) -> str:
    """Return a duration as `m:ss` or `h:mm:ss`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def moment_text(timestamp: int | None) -> str:
    """Return an event time (ms since 1970) in ISO form and UTC, to the second."""
    if timestamp is None or timestamp == MIN_TIMESTAMP:
        return NOTHING
    if timestamp == MAX_TIMESTAMP:
        return "at the end"
    try:
        moment = datetime.fromtimestamp(timestamp / 1_000, UTC)
    except (OverflowError, OSError, ValueError):
        return f"{timestamp} ms"
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def lag_text(lag: Lag) -> str:
    """Return what is still to be read: the sum for each unit, over all sources."""
    sums: dict[str, int] = {}
    for amount, unit in lag.values():
        sums[unit] = sums.get(unit, 0) + amount
    return " + ".join(amount_text(amount, unit) for unit, amount in sums.items()) or NOTHING


def amount_text(amount: int, unit: str) -> str:
    """Return an amount with its unit; bytes as kB, MB or GB."""
    if amount == 0:
        return "none"
    if unit != "bytes":
        return f"{count_text(amount)} {plural(amount, unit.removesuffix('s'))}"
    size = float(amount)
    for name in ("B", "kB", "MB", "GB", "TB"):
        if size < 1_000 or name == "TB":
            break
        size /= 1_000
    return f"{size:.0f} {name}" if name == "B" or size >= 100 else f"{size:.1f} {name}"


def curve(values: tuple[float, ...]) -> str:
    """Return a curve of block characters, the largest value as the highest."""
    top = max(values, default=0.0)
    if top <= 0:
        return ""
    return "".join(_BARS[min(int(v / top * len(_BARS)), len(_BARS) - 1)] for v in values)


def line(view: View) -> str:
    """Return a moment as one line for a log; the same parts in the same order each time."""
    epoch = NOTHING if view.epoch is None else str(view.epoch)
    return (
        f"{view.name}: {view.state}, {records_text(view.records)}, "
        f"{count_text(view.rate)}/s, epoch {epoch}, watermark {moment_text(view.watermark)}, "
        f"lag {lag_text(view.lag)}{held_up_text(view, ', ')}"
    )


def held_up_text(view: View, before: str = "") -> str:
    """Return whom the others wait for; "" while they wait for nobody, or the job has ended."""
    if view.bottleneck is None or view.state in ENDED:
        return ""
    return f"{before}held up by {view.bottleneck}"


def beginning(status: JobStatus, records: int) -> str:
    """Say where a job that has just started goes on."""
    if status.restored_epoch is None:
        return "starting from nothing"
    return f"continuing from epoch {status.restored_epoch} ({records_text(records)} so far)"


def ending(status: JobStatus, records: int, new: int, seconds: float, *, kept: bool) -> str:
    """Say how a job ended and, where it `kept` checkpoints, from where the same command goes on."""
    if status.state == "finished" and new == 0 and status.restored_epoch is not None:
        were = "the 1 record was" if records == 1 else f"all {count_text(records)} records were"
        text = f"nothing new to read: {were} there already"
        return f"finished: {text}"
    rate = f", {count_text(new / seconds)}/s" if seconds > 0 else ""
    text = f"{status.state}: {records_text(new)} in {seconds:.1f} s{rate}"
    if new != records:
        text += f", {count_text(records)} in all"
    if not kept:
        return f"{text} (no checkpoints were kept)"
    if status.epoch is None:
        return f"{text}; no epoch was committed"
    text += f"; epoch {status.epoch} is committed"
    if status.state == "finished":
        return text
    return f"{text}, and the same command goes on from there"
