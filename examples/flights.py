"""Running figures of all flights out of New York: real data, event time, keyed state, exactly once.

    flowrt run examples.flights:flow --checkpoints .demo/checkpoints    (or: make demo)
    python -m examples.flights .demo/figures                            (the table at the end)

For each airport and airline: how many flights, how late on average and at worst, how many were
cancelled. Stop it when you like, by Ctrl-C or kill -9, and run it again: it goes on where it was.
"""

from __future__ import annotations

import csv
import sys
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from flowrt import FileSink, FileSource, Flow, WatermarkStrategy

DATA = Path("examples/data")


class Flight(msgspec.Struct):
    """The columns of a row that matter here."""

    carrier: str
    origin: str
    dep_delay: int | None  # minutes, negative when early; None when it never left
    minute: int
    time_hour: datetime  # the hour of the scheduled departure, in UTC


class Figures(msgspec.Struct, frozen=True):
    """What is kept for each airport and airline."""

    flights: int = 0
    cancelled: int = 0
    delay: int = 0  # minutes, of all flights that left
    worst: int | None = None


class Row(msgspec.Struct, frozen=True):
    """A line of the output: the figures after one more flight."""

    airport: str
    carrier: str
    airline: str
    flights: int
    cancelled: float  # share of the flights
    mean_delay: float | None
    worst_delay: int | None


def scheduled(flight: Flight) -> datetime:
    return flight.time_hour + timedelta(minutes=flight.minute)


def add(figures: Figures, flight: Flight) -> Figures:
    flights, delay = figures.flights + 1, flight.dep_delay
    if delay is None:
        return msgspec.structs.replace(figures, flights=flights, cancelled=figures.cancelled + 1)
    worst = delay if figures.worst is None else max(figures.worst, delay)
    return Figures(flights, figures.cancelled, figures.delay + delay, worst)


def row(keyed: tuple[tuple[str, str], Figures], airline: str | None) -> Row:
    (airport, carrier), figures = keyed
    departed = figures.flights - figures.cancelled
    return Row(
        airport,
        carrier,
        airline or carrier,
        figures.flights,
        round(figures.cancelled / figures.flights, 4),
        round(figures.delay / departed, 2) if departed else None,
        figures.worst,
    )


def airlines() -> dict[str, str]:
    with (DATA / "airlines.csv").open(encoding="utf-8", newline="") as file:
        return {line["carrier"]: line["name"] for line in csv.DictReader(file)}


def flow(year: bool = False, rate: float | None = None, out: Path = Path(".demo/figures")) -> Flow:
    """January, or with `year` all of 2013 (`make flights-year`); `rate` is in flights a second."""
    data = DATA / ("flights-2013.csv.gz" if year else "flights-2013-01.csv.gz")
    in_time = WatermarkStrategy.monotonous().with_timestamps(scheduled)

    flow = Flow("flights")
    (
        flow.source(
            FileSource(data, "csv", type=Flight),
            name="departures",
            watermarks=in_time,
            max_rate=rate,
        )
        .key_by(lambda flight: (flight.origin, flight.carrier))
        .aggregate(Figures, add, name="figures")
        .join_static(airlines(), on=lambda keyed: keyed[0][1], merge=row, how="left")
        .sink(FileSink(out), name="files")
    )
    return flow


def report(folder: Path) -> None:
    """Print a table from the committed files alone: the last line of each airport and airline."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    last: dict[tuple[str, str], Row] = {}
    for part in sorted(folder.glob("part-*.jsonl")):
        for line in msgspec.json.Decoder(Row).decode_lines(part.read_bytes()):
            last[line.airport, line.carrier] = line
    if not last:
        print(f"no committed figures in {folder} yet")
        return

    table = Table(title="Flights out of New York, 2013", box=box.SIMPLE_HEAD)
    table.add_column("airport")
    table.add_column("airline")
    for title in ("flights", "mean delay", "worst delay", "cancelled"):
        table.add_column(title, justify="right")
    for airport in sorted({line.airport for line in last.values()}):
        busiest = sorted(
            (line for line in last.values() if line.airport == airport),
            key=lambda line: -line.flights,
        )
        for place, line in enumerate(busiest[:5]):
            table.add_row(
                airport if place == 0 else "",
                line.airline,
                f"{line.flights:,}",
                "–" if line.mean_delay is None else f"{line.mean_delay:.1f} min",
                "–" if line.worst_delay is None else f"{line.worst_delay:,} min",
                f"{line.cancelled:.1%}",
                end_section=place == len(busiest[:5]) - 1,
            )
    Console().print(table)


if __name__ == "__main__":
    report(Path(sys.argv[1]))
