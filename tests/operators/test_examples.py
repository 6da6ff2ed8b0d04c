"""Every operator has an example in its docstring, and it runs."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import flowrt.operators

HELPERS = {"arguments", "calls"}
OPERATORS = sorted({module.name for module in pkgutil.iter_modules(flowrt.operators.__path__)})


@pytest.mark.parametrize("name", [name for name in OPERATORS if name not in HELPERS])
def test_example(name: str) -> None:
    module = importlib.import_module(f"flowrt.operators.{name}")

    results = doctest.testmod(module)

    assert results.attempted > 0, f"{module.__file__} shows no example"
    assert results.failed == 0
