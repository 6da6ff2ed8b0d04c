"""The page gets figures from a real server while the flow runs."""

from __future__ import annotations

import anyio
import httpx2
import pytest
import uvicorn
from anyio.lowlevel import checkpoint

from examples.live_page import app


@pytest.mark.asyncio
async def test_a_page_gets_figures_while_they_change() -> None:
    server = uvicorn.Server(
        uvicorn.Config(app, port=0, log_level="critical", timeout_graceful_shutdown=1)
    )
    async with anyio.create_task_group() as group:
        group.start_soon(server.serve)
        while not server.started:
            await checkpoint()
        (port,) = {s.getsockname()[1] for one in server.servers for s in one.sockets}
        lines: list[str] = []
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            assert "EventSource" in (await client.get("/")).text
            async with client.stream("GET", "/figures") as response:
                async for line in response.aiter_lines():
                    lines.append(line)
                    if len(lines) > 20:
                        break
        server.should_exit = True

    assert lines[0].startswith("retry: ")
    assert "event: figure" in lines
    assert any(line.startswith('data: ["sensor-') for line in lines)
