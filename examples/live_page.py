"""A page that shows running figures while they change, by server-sent events.

    uvicorn examples.live_page:app --timeout-graceful-shutdown 2     (then open its address)

A browser that loses the connection comes back by itself and says which event was its last, so that
it misses none as long as the last thousand are kept. `--timeout-graceful-shutdown` because pages
that are open would hold up the server's end.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, StreamingResponse

import flowrt

PAGE = """
<!doctype html>
<title>Sensors</title>
<table id="sensors"></table>
<script>
  const source = new EventSource("/figures");
  source.addEventListener("figure", (event) => {
    const [sensor, readings] = JSON.parse(event.data);
    const row = document.getElementById(sensor) ?? document.getElementById("sensors").insertRow();
    row.id = sensor;
    row.textContent = `${sensor}: ${readings} readings`;
  });
  source.addEventListener("missed", () => location.reload());
</script>
"""

figures: flowrt.LiveSink[tuple[str, int]] = flowrt.LiveSink(event="figure")


def flow(rate: float = 20, rows: int | None = None) -> flowrt.Flow:
    """Count the readings of four sensors; `rate` is in readings a second."""
    flow = flowrt.Flow("sensors")
    (
        flow.source(flowrt.RateSource(rate, rows=rows), name="readings")
        .key_by(lambda row: f"sensor-{row.value % 4}")
        .count(name="count")
        .sink(figures, name="figures")
    )
    return flow


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with flowrt.start(flow(), on_failure="keep"):
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/")
async def page() -> HTMLResponse:
    return HTMLResponse(PAGE)


@app.get("/figures")
async def stream(request: Request) -> Any:
    last = request.headers.get("last-event-id")
    # A page that is new begins with the last figures of all sensors.
    body = figures.stream(last, replay=4)
    return StreamingResponse(
        body, media_type="text/event-stream", headers={"Cache-Control": "no-cache"}
    )
