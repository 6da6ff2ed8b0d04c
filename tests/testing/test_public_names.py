"""What `flowrt.testing` offers changes only on purpose, and each name promises something."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import flowrt.testing

NAMES = [
    "END",
    "FAIL",
    "IDLE",
    "LawBroken",
    "ManualClock",
    "MemoryFiles",
    "PAUSE",
    "RESTART",
    "RecordingSink",
    "ScriptedFailure",
    "ScriptedSinkFailure",
    "ScriptedSource",
    "SeededRandomness",
    "barrier",
    "check_operator",
    "check_sink",
    "check_source",
    "drive",
    "fail",
    "left",
    "manual_world",
    "passing_time",
    "processing_time",
    "record",
    "records",
    "right",
    "run_flow",
    "side",
    "watermark",
]


def test_the_names() -> None:
    assert list(flowrt.testing.__all__) == sorted(flowrt.testing.__all__) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_name_has_a_docstring(name: str) -> None:
    thing = getattr(flowrt.testing, name)

    if inspect.isclass(thing) or inspect.isroutine(thing):
        assert (thing.__dict__.get("__doc__") or thing.__doc__ or "").strip()


def test_the_kit_needs_no_plugin_no_broker_and_no_other_event_loop() -> None:
    code = "import sys, flowrt.testing; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )

    assert {"pytest", "hypothesis", "trio", "uvloop", "aiokafka"}.isdisjoint(done.stdout.split())
