"""The kernel decides; the world is handed to it.

ruff's TID251 holds the banned imports (see pyproject.toml). This test holds the same list on its
own, so that no `noqa` is a way around it, and adds what ruff does not see: builtins.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.source_tree import KERNEL_ROOMS, ROOT, Module, modules

BANNED_BUILTINS = {
    "open": "take files from the world",
    "input": "the kernel asks nobody",
    "print": "report through metrics, a log record or an error",
    "eval": "snapshots are data, never code",
    "exec": "where code is generated, say so in ALLOWED of this test",
    "__import__": "import by statement, so that the layers can be held",
    "breakpoint": "left from debugging",
}
# Module name -> builtins that it may use all the same, each line with its reason beside it.
ALLOWED: dict[str, frozenset[str]] = {
    # A chain of plain functions is fused into one generated function: our text, no user's.
    "flowrt.dataflow.chains.fuse": frozenset({"exec"}),
}


def _banned_apis() -> tuple[str, ...]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        lint = tomllib.load(file)["tool"]["ruff"]["lint"]
    return tuple(lint["flake8-tidy-imports"]["banned-api"])


BANNED_APIS = _banned_apis()


def complaints(module: Module) -> Iterator[str]:
    """What a kernel module takes from the world by itself, one line each."""
    names = _imported_names(module.tree)
    banned = BANNED_BUILTINS.keys() - names.keys() - ALLOWED.get(module.name, frozenset())
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for name in _taken(node):
                if _is_banned(name):
                    yield f"{module.at(node)}: imports {name}; take it from the world"
        elif isinstance(node, ast.Attribute) and (used := _dotted(node, names)) in BANNED_APIS:
            yield f"{module.at(node)}: uses {used}; take it from the world"
        elif isinstance(node, ast.Name) and node.id in banned and isinstance(node.ctx, ast.Load):
            yield f"{module.at(node)}: uses {node.id}; {BANNED_BUILTINS[node.id]}"


def _taken(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [] if node.level else [f"{node.module}.{alias.name}" for alias in node.names]


def _is_banned(name: str) -> bool:
    return any(name == api or name.startswith(f"{api}.") for api in BANNED_APIS)


def _imported_names(tree: ast.Module) -> dict[str, str]:
    """Local name -> what it stands for: `{"dt": "datetime.datetime"}`."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                names[alias.asname or top] = alias.name if alias.asname else top
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return names


def _dotted(node: ast.Attribute, names: dict[str, str]) -> str | None:
    parts = [node.attr]
    value = node.value
    while isinstance(value, ast.Attribute):
        parts.append(value.attr)
        value = value.value
    if not isinstance(value, ast.Name) or value.id not in names:
        return None
    return ".".join([names[value.id], *reversed(parts)])


def test_the_kernel_takes_nothing_from_the_world_by_itself() -> None:
    kernel = [module for module in modules() if module.room in KERNEL_ROOMS]
    found = [line for module in kernel for line in complaints(module)]

    assert kernel
    assert not found, "the kernel's rooms are pure:\n" + "\n".join(found)


def test_the_lint_bans_what_the_design_bans() -> None:
    assert {"time", "os", "random", "uuid", "datetime.datetime.now"} <= set(BANNED_APIS)


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("import time", "imports time"),
        ("import os.path", "imports os.path"),
        ("from time import monotonic  # noqa: TID251", "imports time.monotonic"),
        ("from io import open as fopen", "imports io.open"),
        ("open('x')", "uses open"),
        ("f = open", "uses open"),
        ("print('x')", "uses print"),
        ("import datetime\ndatetime.datetime.now()", "uses datetime.datetime.now"),
        ("import datetime as d\nd.date.today()", "uses datetime.date.today"),
        ("from datetime import datetime as dt\ndt.utcnow()", "uses datetime.datetime.utcnow"),
        ("import anyio\nanyio.current_time()", "uses anyio.current_time"),
    ],
)
def test_an_impure_line_is_named(source: str, line: str) -> None:
    (found,) = complaints(_module(source))

    assert line in found
    assert found.startswith(f"flowrt/state/memory.py:{source.count(chr(10)) + 1}: ")


@pytest.mark.parametrize(
    "source",
    [
        "from datetime import datetime, timedelta, timezone",
        "from flowrt.contract import time",
        "from flowrt.contract.time import to_ms",
        "async def open(self): ...",
        "await operator.open(ctx)",
        "moment.now()",
        "import anyio\nanyio.sleep(0)",
    ],
)
def test_a_pure_line_passes(source: str) -> None:
    assert list(complaints(_module(source))) == []


def _module(source: str) -> Module:
    return Module("flowrt.state.memory", Path("flowrt/state/memory.py"), source)
