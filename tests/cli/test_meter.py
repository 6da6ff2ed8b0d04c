"""What is said about a running job, part by part."""

from __future__ import annotations

import pytest

from flowrt.cli.meter import (
    Meter,
    amount_text,
    beginning,
    count_text,
    curve,
    ending,
    lag_text,
    line,
    moment_text,
    time_text,
)
from flowrt.contract.elements import MAX_TIMESTAMP, MIN_TIMESTAMP
from flowrt.runtime.status import Bottleneck, JobMetrics, JobState, JobStatus


def status(
    state: JobState = "running", epoch: int | None = None, restored: int | None = None
) -> JobStatus:
    return JobStatus("flights", state, epoch, restored, restarts=0, generation=1)


def metrics(records: int, watermark: int | None = None) -> JobMetrics:
    return JobMetrics(records, records, watermark)


def test_a_line_has_the_same_parts_in_the_same_order() -> None:
    meter = Meter()
    meter.view(status(), metrics(1_000), {}, 1.0)

    view = meter.view(
        status(epoch=3), metrics(9_000, 1_357_048_800_000), {"files": (2_500_000, "bytes")}, 3.0
    )

    assert line(view) == (
        "flights: running, 9,000 records, 4,000/s, epoch 3, watermark 2013-01-01T14:00:00Z, "
        "lag 2.5 MB"
    )


def test_nothing_known_is_a_dash_and_not_a_zero() -> None:
    view = Meter().view(status("starting"), metrics(0), {}, 0.0)

    assert line(view) == "flights: starting, 0 records, 0/s, epoch –, watermark –, lag –"


def test_whom_the_others_wait_for_is_named_while_it_runs() -> None:
    found = Bottleneck("score", "score", 0, busy_ratio=0.97, holds_up_ratio=0.8)
    held_up = JobMetrics(10, 10, None, bottleneck=found)

    assert line(Meter().view(status(), held_up, {}, 0.0)).endswith(", lag –, held up by score")
    assert line(Meter().view(status("drained"), held_up, {}, 0.0)).endswith(", lag –")


def test_the_rate_is_that_of_the_last_two_seconds() -> None:
    meter = Meter()
    for second, records in enumerate([0, 1_000, 2_000, 2_010]):
        meter.view(status(), metrics(records), {}, float(second))

    view = meter.view(status(), metrics(2_020), {}, 4.0)

    assert view.rate == 10.0
    assert len(view.history) == 5


def test_records_of_an_earlier_life_are_no_rate() -> None:
    meter = Meter()

    meter.view(status("starting"), metrics(0), {}, 0.0)
    view = meter.view(status(), metrics(20_000), {}, 1.0)

    assert view.rate == 0.0


def test_at_the_end_the_rate_is_over_all_and_the_watermark_is_the_last_known() -> None:
    meter = Meter()
    for second, records in enumerate([0, 1_000, 2_000, 2_000]):
        meter.view(status(), metrics(records, 1_000), {}, float(second))

    view = meter.view(status("finished"), metrics(2_000, None), {}, 4.0)

    assert view.rate == 500.0
    assert view.watermark == 1_000
    assert len(view.history) == 4


def test_a_restart_that_counts_again_gives_no_negative_rate() -> None:
    meter = Meter()
    meter.view(status(), metrics(5_000), {}, 0.0)

    assert meter.view(status(), metrics(4_000), {}, 1.0).rate == 0.0
    assert meter.view(status(), metrics(4_500), {}, 2.0).rate == 500.0


@pytest.mark.parametrize(
    ("timestamp", "text"),
    [
        (None, "–"),
        (MIN_TIMESTAMP, "–"),
        (MAX_TIMESTAMP, "at the end"),
        (0, "1970-01-01T00:00:00Z"),
        (-1, "1969-12-31T23:59:59Z"),
        (10**17, f"{10**17} ms"),
    ],
)
def test_event_time_is_shown_in_utc(timestamp: int | None, text: str) -> None:
    assert moment_text(timestamp) == text


@pytest.mark.parametrize(
    ("amount", "unit", "text"),
    [
        (0, "bytes", "none"),
        (999, "bytes", "999 B"),
        (1_500, "bytes", "1.5 kB"),
        (250_000, "bytes", "250 kB"),
        (3 * 10**15, "bytes", "3000 TB"),
        (12_345, "records", "12,345 records"),
    ],
)
def test_amounts_have_their_unit(amount: int, unit: str, text: str) -> None:
    assert amount_text(amount, unit) == text


def test_lag_is_summed_for_each_unit() -> None:
    lag = {"a": (1_000, "bytes"), "b": (500, "bytes"), "c": (7, "records")}

    assert lag_text(lag) == "1.5 kB + 7 records"


def test_small_texts() -> None:
    assert count_text(1234567) == "1,234,567"
    assert [time_text(s) for s in (0.9, 61, 3_661)] == ["0:00", "1:01", "1:01:01"]
    assert curve((0.0, 50.0, 100.0)) == "▁▅█"
    assert curve(()) == curve((0.0, 0.0)) == ""


def test_it_says_where_a_job_goes_on() -> None:
    assert beginning(status(), 0) == "starting from nothing"
    assert beginning(status(epoch=7, restored=7), 12_345) == (
        "continuing from epoch 7 (12,345 records so far)"
    )


def test_it_says_how_a_job_ended() -> None:
    def said(
        state: JobState, epoch: int | None, records: int, new: int, *, kept: bool = True
    ) -> str:
        restored = epoch if records != new else None
        return ending(status(state, epoch, restored), records, new, 2.0, kept=kept)

    assert said("finished", 8, 1_000, 1_000) == (
        "finished: 1,000 records in 2.0 s, 500/s; epoch 8 is committed"
    )
    assert said("drained", 5, 3_000, 1_000) == (
        "drained: 1,000 records in 2.0 s, 500/s, 3,000 in all; epoch 5 is committed, and the same "
        "command goes on from there"
    )
    assert said("finished", 9, 1_000, 0) == (
        "finished: nothing new to read: all 1,000 records were there already"
    )
    assert said("failed", None, 10, 10) == (
        "failed: 10 records in 2.0 s, 5/s; no epoch was committed"
    )
    assert said("drained", 3, 10, 10, kept=False) == (
        "drained: 10 records in 2.0 s, 5/s (no checkpoints were kept)"
    )
