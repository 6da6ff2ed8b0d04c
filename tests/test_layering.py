"""Imports point one way: the table of docs/architecture.md, held over every import statement.

import-linter holds most of it too (see pyproject.toml). This test names the line, counts imports
under `TYPE_CHECKING` and in functions alike, and sees the facade and rooms without a name.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.source_tree import Module, modules, room_of

FLOOR = frozenset({"graph", "dataflow", "checkpoint", "state", "schedulers"})
KERNEL = FLOOR | {"contract", "runtime"}
EVERYTHING = KERNEL | {"operators", "connectors", "testing", "observe", "stream", "cli", "flowrt"}

MAY_IMPORT: dict[str, frozenset[str]] = {
    "contract": frozenset(),
    **{room: frozenset({"contract"}) for room in FLOOR},
    "operators": frozenset({"contract"}),
    "connectors": frozenset({"contract"}),
    "runtime": FLOOR | {"contract"},
    "testing": KERNEL,
    "observe": frozenset({"contract", "runtime"}),
    "stream": EVERYTHING,
    "cli": EVERYTHING,
    "flowrt": EVERYTHING,  # the facade
}

# Folders beside the package: nothing that is shipped may need them.
OUTSIDE = frozenset({"operators", "tests", "bench", "examples"})

# A library with one door: module name -> the only module that may import it.
ONE_DOOR = {
    "aiokafka": "flowrt.connectors.kafka",
    "opentelemetry": "flowrt.observe.opentelemetry",
    "prometheus_client": "flowrt.observe.prometheus",
}


def imports(module: Module) -> Iterator[tuple[ast.stmt, str]]:
    """Each import statement with the full name of what it takes, relative imports resolved.

    `from flowrt import x` gives `flowrt.x` where x is a room, and else `flowrt`, the facade.
    """
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node, alias.name
        elif isinstance(node, ast.ImportFrom):
            origin = _origin(module, node)
            for alias in node.names:
                whole = f"{origin}.{alias.name}"
                yield node, whole if origin != "flowrt" or alias.name in MAY_IMPORT else origin


def _origin(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    up = node.level - 1 if module.is_package else node.level
    parts = module.name.split(".")
    parts = parts[: len(parts) - up]
    return ".".join([*parts, node.module] if node.module else parts)


def complaints(module: Module) -> Iterator[str]:
    """What is wrong with a module's imports, one line each."""
    if module.room not in MAY_IMPORT:
        yield (
            f"{module.path}:1: {module.room!r} is not a room of the house; give it a row in the "
            "table of docs/architecture.md, in tests/test_layering.py and in pyproject.toml"
        )
        return
    for node, name in imports(module):
        top = name.partition(".")[0]
        if top in OUTSIDE:
            right = " (its name is flowrt.operators)" if top == "operators" else ""
            yield f"{module.at(node)}: imports {name}, which lies outside the package{right}"
        elif top in ONE_DOOR and module.name != ONE_DOOR[top]:
            yield f"{module.at(node)}: imports {name}; only {ONE_DOOR[top]} may"
        elif top == "flowrt" and not _allowed(module.room, room_of(name)):
            yield f"{module.at(node)}: {_refusal(module.room, name)}"


def _allowed(room: str, target: str) -> bool:
    return target == room or target in MAY_IMPORT[room]


def _refusal(room: str, name: str) -> str:
    allowed = ", ".join(sorted(MAY_IMPORT[room])) or "nothing of ours"
    what = "the facade flowrt" if room_of(name) == "flowrt" else name
    return f"{room} imports {what}, but may import only itself and: {allowed}"


def test_imports_point_one_way() -> None:
    found = [line for module in modules() for line in complaints(module)]

    assert not found, "imports against the table of rooms:\n" + "\n".join(found)


def test_every_module_is_seen() -> None:
    names = {module.name for module in modules()}

    assert {"flowrt", "flowrt.contract", "flowrt.operators"} <= names


@pytest.mark.parametrize(
    ("name", "source", "line"),
    [
        ("flowrt.contract.time", "import flowrt.graph", "contract imports flowrt.graph"),
        ("flowrt.graph.plan", "from flowrt.state import memory", "graph imports flowrt.state"),
        ("flowrt.graph.plan", "from flowrt import Flow", "graph imports the facade flowrt"),
        ("flowrt.graph.plan", "from flowrt import dataflow", "graph imports flowrt.dataflow"),
        ("flowrt.graph.plan", "from ..state import memory", "graph imports flowrt.state.memory"),
        ("flowrt.graph.plan", "from .. import state", "graph imports flowrt.state"),
        ("flowrt.operators.map", "from flowrt.runtime import job", "operators imports flowrt.run"),
        ("flowrt.connectors.kafka", "import flowrt.operators.map", "connectors imports flowrt.op"),
        ("flowrt.runtime.job", "import flowrt.connectors.files", "runtime imports flowrt.conn"),
        ("flowrt.runtime.job", "import flowrt.testing", "runtime imports flowrt.testing"),
        ("flowrt.testing.drive", "import flowrt.operators", "testing imports flowrt.operators"),
        ("flowrt.stream", "import operators.map", "outside the package"),
        ("flowrt.runtime.job", "import tests.kit", "outside the package"),
        ("flowrt.connectors.files", "import aiokafka", "only flowrt.connectors.kafka may"),
        ("flowrt.cli.app", "import prometheus_client", "only flowrt.observe.prometheus may"),
        ("flowrt.observe.figures", "import flowrt.dataflow", "observe imports flowrt.dataflow"),
        ("flowrt.utils.text", "", "'utils' is not a room"),
    ],
)
def test_a_wrong_import_is_named(name: str, source: str, line: str) -> None:
    # Indented under TYPE_CHECKING, for that is no way around the table.
    (found,) = complaints(_module(name, f"if TYPE_CHECKING:\n    {source or 'pass'}\n"))

    assert line in found
    assert found.startswith(f"{name.replace('.', '/')}.py:{2 if source else 1}: ")


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("flowrt.contract.operator", "from flowrt.contract.elements import Watermark"),
        ("flowrt.dataflow.channels.channel", "from flowrt.contract import Barrier"),
        ("flowrt.dataflow.channels.channel", "from .timers import Timers"),
        ("flowrt.runtime.job", "from flowrt import checkpoint, dataflow, graph, schedulers, state"),
        ("flowrt.testing.drive", "from flowrt.runtime.clock import Clock"),
        ("flowrt.cli", "from flowrt import Flow"),
        ("flowrt.stream", "from flowrt import connectors, operators"),
        ("flowrt.connectors.kafka", "import aiokafka.errors"),
        ("flowrt.graph.plan", "import flowrtish"),
    ],
)
def test_a_right_import_passes(name: str, source: str) -> None:
    assert list(complaints(_module(name, source))) == []


def _module(name: str, source: str) -> Module:
    return Module(name, Path(name.replace(".", "/") + ".py"), source)
