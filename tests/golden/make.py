"""Writes the checkpoints of this version: `python -m tests.golden.make`, once for each version.

They are kept for ever: a folder that is there is never written again.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import anyio

from flowrt.testing.scripted_source import ScriptedSource
from flowrt.testing.world import ManualClock
from tests.golden.flow import KEYS, NOW_MS, Sinks, flow, rules, script
from tests.journeys.kit import FOLDER, Place, turns, until

HERE = Path(__file__).parent


async def never(value: Any) -> Any:
    """Answer nothing: all that was asked stays in flight."""
    await anyio.sleep_forever()


async def checkpoints() -> dict[str, bytes]:
    """Run the flow for three epochs; return the files of its checkpoint folder."""
    place = Place(clock=ManualClock(NOW_MS))
    events, changes = ScriptedSource[Any](script()), ScriptedSource[Any](rules())
    read = 2 + 1
    async with place.start(flow(events, changes, never, Sinks()), keep_checkpoints=1) as job:
        for number in (1, 2, 3):
            read += len(KEYS) if number < 3 else 3
            wanted = read
            # It is called in this round only, so that the name means what it does now.
            await until(lambda: job.metrics().records_in == wanted)  # noqa: B023
            await turns()
            await place.epoch(job)
            await turns()
            if number < 3:
                events.release("long")
        await job.cancel()
    paths = [path for path in place.files.paths() if path.startswith(FOLDER)]
    return {path.removeprefix(f"{FOLDER}/"): place.files.contents(path) for path in paths}


def write(folder: Path) -> None:
    """Write the checkpoints of this version into a new folder."""
    if folder.exists():
        sys.exit(f"{folder} is kept for ever: a new version has a new folder")
    for name, data in anyio.run(checkpoints).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


if __name__ == "__main__":
    write(HERE / version("flowrt"))
