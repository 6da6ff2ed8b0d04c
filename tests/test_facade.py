"""The facade says the same to Python, which loads a name when it is used, and to type checkers."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import flowrt


def test_type_checkers_see_the_same_names_in_the_same_homes() -> None:
    tree = ast.parse(Path(flowrt.__file__).read_text("utf-8"))
    block, _ = (node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    seen = {alias.asname: node.module for node in imports for alias in node.names}

    assert seen == flowrt._HOMES


def test_importing_loads_nothing_before_it_is_used() -> None:
    code = "import sys, flowrt; print(*[name for name in sys.modules if name[:6] == 'flowrt'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["flowrt"]


def test_names_are_listed_before_they_are_loaded() -> None:
    assert set(flowrt.__all__) <= set(dir(flowrt))


def test_another_name_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="module 'flowrt' has no attribute 'Flwo'"):
        flowrt.Flwo  # type: ignore[attr-defined]  # noqa: B018
