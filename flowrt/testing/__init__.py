"""The public test kit: a world under control, and checks of the laws of operators, sources, sinks.

For tests of any kind: no broker, no server, no plugin, on asyncio, uvloop and trio.
"""

from flowrt.testing.check_operator import check_operator
from flowrt.testing.check_sink import check_sink
from flowrt.testing.check_source import check_source
from flowrt.testing.drive import drive
from flowrt.testing.laws import LawBroken
from flowrt.testing.memory_files import MemoryFiles
from flowrt.testing.recording_sink import RecordingSink, ScriptedSinkFailure
from flowrt.testing.run_flow import passing_time, run_flow
from flowrt.testing.script import (
    END,
    FAIL,
    IDLE,
    PAUSE,
    RESTART,
    barrier,
    fail,
    left,
    processing_time,
    record,
    records,
    right,
    side,
    watermark,
)
from flowrt.testing.scripted_source import ScriptedFailure, ScriptedSource
from flowrt.testing.world import ManualClock, SeededRandomness, manual_world

__all__ = [
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
