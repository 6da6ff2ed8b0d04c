"""Log records say which flow and which operator they are about."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import structlog

from flowrt import FileSource, FixedDelay, Flow, MemorySink, start
from flowrt.contract.logs import flow_log, flow_name, operator_name
from flowrt.testing import FAIL, ScriptedSource

pytestmark = pytest.mark.anyio


def names(record: logging.LogRecord) -> tuple[str | None, str | None]:
    return getattr(record, "flow", None), getattr(record, "operator", None)


async def failing(tmp_path: Path) -> None:
    flow = Flow("orders")
    flow.source(ScriptedSource([1, FAIL, 2]), name="numbers").sink(MemorySink())
    async with start(flow, checkpoints=tmp_path / "checkpoints", restart=FixedDelay("0s")) as job:
        await job.wait()


async def test_what_a_job_logs_has_its_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "flowrt"):
        await failing(tmp_path)

    [record] = caplog.records
    assert record.getMessage().startswith("flow orders failed, next try in")
    assert names(record) == ("orders", None)


async def test_what_a_source_logs_has_its_operators_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "orders.jsonl").write_text('{"a": 1}\nbroken\n', encoding="utf-8")
    flow = Flow("orders")
    source = FileSource(tmp_path / "orders.jsonl", on_error="skip")
    flow.source(source, name="lines").sink(MemorySink())

    with caplog.at_level(logging.WARNING, "flowrt"):
        async with start(flow) as job:
            await job.wait()

    [record] = caplog.records
    assert record.name == "flowrt.connectors.files"
    assert names(record) == ("orders", "lines")


async def test_nothing_of_it_is_left_with_the_caller() -> None:
    flow = Flow("orders")
    flow.source([1]).sink(MemorySink())
    async with start(flow) as job:
        await job.wait()

    assert (flow_name.get(), operator_name.get()) == (None, None)


def test_who_knows_better_is_believed(caplog: pytest.LogCaptureFixture) -> None:
    log = flow_log("flowrt.test")
    token = flow_name.set("orders")
    try:
        log.warning("here")
        log.warning("there", extra={"operator": "map", "count": 3})
    finally:
        flow_name.reset(token)
    log.warning("outside")

    here, there, outside = caplog.records
    assert names(here) == ("orders", None)
    assert (names(there), getattr(there, "count", None)) == (("orders", "map"), 3)
    assert not hasattr(outside, "flow")
    assert not hasattr(outside, "operator")


async def test_structlog_shows_the_names_beside_the_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = logging.StreamHandler()
    formatter: Any = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.add_log_level, structlog.stdlib.ExtraAdder()],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.JSONRenderer(),
        ],
    )
    handler.setFormatter(formatter)
    log = logging.getLogger("flowrt")
    log.addHandler(handler)
    try:
        await failing(tmp_path)
    finally:
        log.removeHandler(handler)

    [line] = capsys.readouterr().err.splitlines()
    shown = json.loads(line)
    assert (shown["flow"], shown["level"]) == ("orders", "warning")
    assert shown["event"].startswith("flow orders failed")
