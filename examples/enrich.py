"""Airports, each with its weather: a slow service is asked about many of them at once.

    flowrt run examples.enrich:flow --checkpoints .demo/weather-checkpoints

One after the other the 1,458 calls of 20 ms would take half a minute; 200 at once take a moment.
After a crash the calls that were under way are made again, and no airport is lost or comes twice.
"""

from __future__ import annotations

from pathlib import Path

import anyio
import msgspec

from flowrt import Cache, ExponentialBackoff, FileSink, FileSource, Flow

AIRPORTS = Path("examples/data/airports.csv")


class Airport(msgspec.Struct, frozen=True):
    """The columns of a row that matter here."""

    faa: str
    name: str
    lat: float
    lon: float


class Weather(msgspec.Struct, frozen=True):
    """A line of the output."""

    airport: str
    name: str
    celsius: float


class Service:
    """Stands for a client of a weather service: answers after a while."""

    def __init__(self, seconds: float = 0.02) -> None:
        self.seconds = seconds
        self.calls = 0

    async def celsius(self, lat: float, lon: float) -> float:
        """Return the temperature at a place; the further north, the colder."""
        self.calls += 1
        await anyio.sleep(self.seconds)
        return round(35 - abs(lat) * 0.6, 1)


def flow(out: Path = Path(".demo/weather"), service: Service | None = None) -> Flow:
    """Write a line for each airport, in the order of the file."""
    weather = service or Service()

    async def with_weather(airport: Airport) -> Weather:
        celsius = await weather.celsius(airport.lat, airport.lon)
        return Weather(airport.faa, airport.name, celsius)

    flow = Flow("enrich")
    (
        flow.source(FileSource(AIRPORTS, "csv", type=Airport), name="airports")
        .map_async(
            with_weather,
            capacity=200,
            timeout="2s",
            retry=ExponentialBackoff("50ms", longest="2s", attempts=5),
            cache=Cache(ttl="10m"),
            name="weather",
        )
        .sink(FileSink(out), name="files")
    )
    return flow
