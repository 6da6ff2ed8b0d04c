"""The public names change only on purpose: in `flowrt.__all__` and in tests/public_names.txt."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
import typing
from pathlib import Path

import pytest

import flowrt

LIST = Path(__file__).with_name("public_names.txt")
# Loaded by what needs them, never by `import flowrt`.
HEAVY = frozenset(
    {
        "aiokafka",
        "asyncpg",
        "click",
        "flowrt.observe",
        "flowrt.testing",
        "opentelemetry",
        "prometheus_client",
        "rich",
        "sqlite3",
        "trio",
        "typer",
    }
)


def test_names_are_sorted_and_unique() -> None:
    assert list(flowrt.__all__) == sorted(set(flowrt.__all__))


def test_names_are_those_in_the_list() -> None:
    listed = [line for line in LIST.read_text("utf-8").split() if not line.startswith("#")]
    added = sorted(set(flowrt.__all__) - set(listed))
    gone = sorted(set(listed) - set(flowrt.__all__))

    assert listed == sorted(listed), f"{LIST.name} is not sorted"
    assert not added, f"new public names; if that is meant, add to {LIST.name}: {added}"
    assert not gone, f"public names are gone; if meant, take from {LIST.name}: {gone}"


@pytest.mark.parametrize("name", flowrt.__all__)
def test_name_is_there_and_has_a_docstring(name: str) -> None:
    thing = getattr(importlib.import_module("flowrt"), name)

    if inspect.isclass(thing) or inspect.isroutine(thing) or inspect.ismodule(thing):
        assert _own_docstring(thing), f"flowrt.{name} has no docstring of its own"
    else:  # a constant or an alias of a type carries no docstring: the docs say what it is
        assert thing is not None or name in typing.get_type_hints(flowrt)


def _own_docstring(thing: object) -> str:
    # Not inspect.getdoc: a docstring that was inherited promises something else. And a dataclass
    # without one is given its signature, which promises nothing.
    text = (vars(thing).get("__doc__") if inspect.isclass(thing) else thing.__doc__) or ""
    is_signature = text.startswith(f"{getattr(thing, '__name__', '')}(") and "\n" not in text
    return "" if is_signature else text.strip()


def test_nothing_public_is_left_out_of_the_list() -> None:
    submodules = {name for name, value in vars(flowrt).items() if inspect.ismodule(value)}
    public = {name for name in vars(flowrt) if not name.startswith("_")} - submodules

    assert public - {"annotations"} <= set(flowrt.__all__)


def test_import_loads_nothing_heavy() -> None:
    code = "import sys, flowrt; [getattr(flowrt, n) for n in flowrt.__all__]; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert HEAVY.isdisjoint(done.stdout.split()), sorted(HEAVY & set(done.stdout.split()))


def test_operators_have_one_name() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import flowrt.operators, operators"],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert "import flowrt.operators instead of operators" in done.stderr
