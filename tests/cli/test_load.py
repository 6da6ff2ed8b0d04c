"""`module:flow` and its parameters: what is found, and what is said where nothing is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest

from flowrt.cli.load import arguments, load_flow, parse_params
from flowrt.contract.errors import ConfigError, GraphError
from tests.cli.conftest import Write

FLOWS = """
from flowrt import Flow, MemorySink

number = 3

def made(count: int = 2, name: str = "made") -> Flow:
    flow = Flow(name)
    flow.source(range(count)).sink(MemorySink())
    return flow

ready = made(name="ready")

class Flows:
    inside = made(name="inside")

async def later() -> Flow: ...

def other(): return 5

def broken() -> Flow: raise KeyError("no such table")

def wrong() -> Flow: return Flow("no name")
"""


def test_a_flow_is_found_by_its_name(module: Write) -> None:
    name = module(FLOWS)

    assert load_flow(f"{name}:ready", {}).name == "ready"
    assert load_flow(f"{name}:Flows.inside", {}).name == "inside"


def test_a_function_is_called_with_parameters(module: Write) -> None:
    name = module(FLOWS)

    assert load_flow(f"{name}:made", {}).name == "made"
    assert load_flow(f"{name}:made", {"name": "mine", "count": "5"}).name == "mine"


@pytest.mark.parametrize(
    ("target", "params", "message"),
    [
        ("{}", {}, r"say which flow of it is meant. It has \w+:made, \w+:ready"),
        ("{}:absent", {}, r"has no 'absent'. It has \w+:made"),
        ("{}:number", {}, "is an int, neither a Flow nor a plain function"),
        ("{}:Flows", {}, r"is a class \(Flows\), neither"),
        ("{}:later", {}, "is a coroutine function, neither"),
        ("{}:other", {}, r"returned an int, not a Flow"),
        ("{}:broken", {}, r"\(\.\.\.\) raised .*line 20"),
        ("{}:ready", {"count": "3"}, r"is a Flow and takes no parameters \(given: count\)"),
        ("{}:made", {"amount": "3"}, r"has no parameter 'amount'. It takes: count: int = 2, name"),
        ("{}:made", {"count": "few"}, r"--param count=few of .* does not fit int"),
        ("{}.py:made", {}, r"names a file: write the module as Python imports it, \w+:made"),
        ("x/{}.py:made", {}, r"write the module as Python imports it, x\.\w+:made"),
        ("no-such:made", {}, "is not of the form module:flow"),
        ("no_such_module.flows:made", {}, "there is no module 'no_such_module.flows': looked for"),
    ],
)
def test_what_cannot_be_found_is_said(
    module: Write, target: str, params: dict[str, str], message: str
) -> None:
    name = module(FLOWS)

    with pytest.raises(ConfigError, match=message):
        load_flow(target.format(name), params)


def test_an_error_of_ours_is_passed_on(module: Write) -> None:
    with pytest.raises(GraphError, match="cannot be named 'no name'"):
        load_flow(f"{module(FLOWS)}:wrong", {})


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import no_such_library", "imports no_such_library, which is not installed"),
        ("1 / 0", r"cannot be imported \(.*line 1\)"),
        ("def flow(:", r"cannot be imported \(.*line 1\)"),
    ],
)
def test_a_module_that_cannot_be_imported_is_said(module: Write, source: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_flow(f"{module(source)}:flow", {})


def test_a_module_without_flows_says_so(module: Write) -> None:
    with pytest.raises(ConfigError, match="There is no flow in it"):
        load_flow(module("x = 1"), {})


def test_parameters_are_names_and_values() -> None:
    assert parse_params(["year=true", "out=a=b", "empty="]) == {
        "year": "true",
        "out": "a=b",
        "empty": "",
    }
    for wrong in ("year", "=3", "a b=3"):
        with pytest.raises(ConfigError, match="is not of the form name=value"):
            parse_params([wrong])
    with pytest.raises(ConfigError, match="--param year is given twice"):
        parse_params(["year=true", "year=false"])


def converted(function: Callable[..., Any], **params: str) -> dict[str, Any]:
    return arguments(function, "jobs:flow", params)


def test_values_are_converted_by_their_annotation() -> None:
    def flow(  # type: ignore[no-untyped-def]
        plain,
        text: str = "",
        year: bool = False,
        rate: float | None = None,
        out: Path = Path(),
        mode: Literal["fast", "safe"] = "fast",
        airports: list[str] | None = None,
    ) -> None: ...

    given = {"plain": "1", "text": "1", "year": "true", "rate": "2.5", "out": "/x", "mode": "safe"}
    assert converted(flow, **given, airports='["JFK", "LGA"]') == {
        "plain": "1",
        "text": "1",
        "year": True,
        "rate": 2.5,
        "out": Path("/x"),
        "mode": "safe",
        "airports": ["JFK", "LGA"],
    }
    assert converted(flow, plain="", rate="null")["rate"] is None


def test_a_wrong_or_missing_value_is_named() -> None:
    def flow(
        rate: float, mode: Literal["fast", "safe"] = "fast", *rest: int, **more: int
    ) -> None: ...

    with pytest.raises(ConfigError, match=r"jobs:flow needs a value for 'rate'. It takes: rate: "):
        converted(flow)
    with pytest.raises(ConfigError, match="has no parameter 'rest'"):
        converted(flow, rate="1", rest="2")
    with pytest.raises(ConfigError, match="--param mode=slow of jobs:flow does not fit"):
        converted(flow, rate="1", mode="slow")


class Client: ...


def test_a_type_that_text_cannot_fill_is_named() -> None:
    def flow(client: Client, other: Any = None) -> None: ...

    with pytest.raises(ConfigError, match="parameter 'client' of jobs:flow has type Client"):
        converted(flow, client="x")


def test_a_function_without_parameters_says_that_it_takes_none() -> None:
    def flow() -> None: ...

    with pytest.raises(ConfigError, match=r"has no parameter 'x'\. It takes none"):
        converted(flow, x="1")


def test_a_module_that_ends_the_process_is_told(module: Write) -> None:
    name = module("import sys\nsys.exit(0)\n")

    with pytest.raises(ConfigError, match=r"ends the process when it is imported \(.*, line 2\): "):
        load_flow(f"{name}:flow", {})


def test_a_function_that_ends_the_process_is_told(module: Write) -> None:
    name = module("def flow():\n    raise SystemExit('no config')\n")

    with pytest.raises(ConfigError, match=r":flow\(\.\.\.\) raised \(.*, line 2\)"):
        load_flow(f"{name}:flow", {})
