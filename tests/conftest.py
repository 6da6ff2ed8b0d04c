"""What every test shares: the event loops, and how hard hypothesis tries."""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# Every profile is deterministic: the same code draws the same examples. No deadline, for a busy
# machine must not fail a test, and no database, for a run must not depend on the one before.
settings.register_profile(
    "dev", derandomize=True, database=None, deadline=None, max_examples=50, print_blob=True
)
settings.register_profile("ci", settings.get_profile("dev"), max_examples=200)
settings.register_profile(
    "crash",
    settings.get_profile("dev"),
    max_examples=2_000,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev")
)

EVENT_LOOPS = [
    pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
    pytest.param(
        ("asyncio", {"use_uvloop": True}),
        id="uvloop",
        marks=pytest.mark.skipif(sys.platform == "win32", reason="uvloop is not for Windows"),
    ),
    pytest.param(("trio", {}), id="trio"),
]


@pytest.fixture(scope="module", params=EVENT_LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """The event loops the kernel runs on; a test marked `anyio` runs once on each."""
    backend: tuple[str, dict[str, Any]] = request.param
    return backend
