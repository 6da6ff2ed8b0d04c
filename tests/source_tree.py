"""The modules of flowrt as syntax trees: read, never imported."""

from __future__ import annotations

import ast
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KERNEL_ROOMS = ("contract", "graph", "dataflow", "checkpoint", "state", "schedulers")


@dataclass(frozen=True)
class Module:
    """One source file, under the name by which it is imported."""

    name: str
    path: Path
    source: str

    @property
    def is_package(self) -> bool:
        return self.path.name == "__init__.py"

    @property
    def room(self) -> str:
        """The first part after `flowrt`; the facade itself is the room `flowrt`."""
        return room_of(self.name)

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.source, filename=str(self.path))

    def at(self, node: ast.AST) -> str:
        """Where a node is, as a terminal can open it."""
        return f"{self.path}:{getattr(node, 'lineno', 1)}"


def room_of(name: str) -> str:
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else parts[0]


def modules(root: Path = ROOT) -> list[Module]:
    """Every module under `flowrt/`, those behind the symlink `flowrt/operators` too."""
    found = []
    for folder, folders, files in os.walk(root / "flowrt", followlinks=True):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        for file in sorted(name for name in files if name.endswith((".py", ".pyi"))):
            path = (Path(folder) / file).relative_to(root)
            parts = list(path.with_suffix("").parts)
            if parts[-1] == "__init__":
                parts.pop()
            found.append(Module(".".join(parts), path, (root / path).read_text("utf-8")))
    return found
