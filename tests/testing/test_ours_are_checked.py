"""Every operator, source and sink of ours is put to the laws in a test of its own."""

from __future__ import annotations

import pkgutil
from pathlib import Path

import pytest

import flowrt
import flowrt.operators
from flowrt.contract.sink import Sink
from flowrt.contract.source import Source
from tests.operators.test_examples import HELPERS

TESTS = Path(__file__).parent.parent
OPERATORS = {module.name for module in pkgutil.iter_modules(flowrt.operators.__path__)} - HELPERS
PUBLIC = [getattr(flowrt, name) for name in flowrt.__all__]
ENDS = [
    (thing.__name__, check)
    for kind, check in ((Source, "check_source("), (Sink, "check_sink("))
    for thing in PUBLIC
    if isinstance(thing, type) and issubclass(thing, kind) and thing is not kind
]


@pytest.mark.parametrize("name", sorted(OPERATORS))
def test_operators(name: str) -> None:
    text = (TESTS / "operators" / f"test_{name}.py").read_text(encoding="utf-8")

    assert f"flowrt.operators.{name} import" in text
    assert "await check_operator(" in text


@pytest.mark.parametrize(("name", "check"), ENDS)
def test_sources_and_sinks(name: str, check: str) -> None:
    paths = [
        path for room in ("connectors", "runtime") for path in (TESTS / room).glob("test_*.py")
    ]
    texts = [path.read_text("utf-8") for path in paths]

    assert any(f"{name}(" in text and f"await {check}" in text for text in texts)


def test_there_are_some() -> None:
    assert {"map", "process", "static_join"} <= OPERATORS
    assert {name for name, _ in ENDS} >= {"FileSource", "FileSink", "PositionedSource"}
