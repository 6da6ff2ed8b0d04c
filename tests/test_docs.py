"""The docs tell the truth: their code runs and is typed, their commands work, their tables hold.

A page may bring what its code needs, unseen by readers: `<!-- file: name` and lines up to `-->`.
Each block of code stands alone unless `<!-- continued -->` comes before it.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from typer.testing import CliRunner

import flowrt
import flowrt.testing
from flowrt.cli.app import app as command_line
from flowrt.graph.guarantee import guarantee

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

_PART = re.compile(
    r"^<!-- file: (?P<file>\S+)\n(?P<text>.*?)^-->$"
    r"|^(?P<continued><!-- continued -->\n+)?```(?P<language>\w+)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A block of code, with the line of the page on which it begins."""

    page: Path
    line: int
    code: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def parts(page: Path) -> Iterator[tuple[re.Match[str], int]]:
    text = page.read_text(encoding="utf-8")
    for match in _PART.finditer(text):
        yield match, text.count("\n", 0, match.start(match.lastgroup or 0)) + 1


def blocks(language: str) -> list[Block]:
    found: list[Block] = []
    for page in PAGES:
        for match, line in parts(page):
            if match["language"] != language:
                continue
            if match["continued"]:
                last = found.pop()
                found.append(Block(page, last.line, f"{last.code}\n\n{match['code']}"))
            else:
                found.append(Block(page, line, match["code"]))
    return found


PYTHON = blocks("python")
CONSOLE = blocks("console")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], None]]:
    """Fill the current folder with the files of a page and the README's flow."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    def fill(page: Path) -> None:
        for match, _ in (part for p in (ROOT / "README.md", page) for part in parts(p)):
            if match["file"]:
                (tmp_path / match["file"]).write_text(match["text"], encoding="utf-8")
        readme_flow = next(block for block in PYTHON if block.page.name == "README.md")
        (tmp_path / "orders.py").write_text(readme_flow.code, encoding="utf-8")

    yield fill
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_code_runs(
    block: Block, folder: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder(block.page)
    module = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", module)

    # On the page's own lines, so that a traceback names them.
    exec(compile("\n" * block.line + block.code, str(block.page), "exec"), module.__dict__)

    if isinstance(served := getattr(module, "app", None), FastAPI):
        with TestClient(served) as client:
            assert client.get("/flow").json()["state"] in ("running", "finished")


def test_tests_pass(tmp_path: Path) -> None:
    """Those in the docs, run as a reader would: by pytest, in a folder without our settings."""
    shown = [block for block in PYTHON if "def test_" in block.code]
    for number, block in enumerate(shown):
        path = tmp_path / f"test_{block.page.stem}_{number}.py"
        path.write_text("\n" * block.line + block.code, encoding="utf-8")
    options = ["-q", "-W", "error", "-p", "no:cacheprovider", "--import-mode=importlib"]
    options += ["-o", "asyncio_default_fixture_loop_scope=function"]

    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "--rootdir", tmp_path, tmp_path],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert shown
    assert done.returncode == 0, done.stdout + done.stderr


def test_code_is_typed(tmp_path: Path) -> None:
    names: dict[str, Block] = {}
    for number, block in enumerate(PYTHON):
        name = f"block_{number}"
        names[f"{name}.py"] = block
        (tmp_path / f"{name}.py").write_text(block.code, encoding="utf-8")
    readme_flow = next(block for block in PYTHON if block.page.name == "README.md")
    (tmp_path / "orders.py").write_text(readme_flow.code, encoding="utf-8")
    options = ["--strict", "--no-warn-unused-ignores", "--no-error-summary"]

    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, "--cache-dir", ROOT / ".mypy_cache", "."],
        cwd=tmp_path,
        env={"MYPYPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )

    told = re.sub(r"block_\d+\.py", lambda m: f"{names[m[0]]} +", done.stdout)
    assert done.returncode == 0, told + done.stderr


@pytest.mark.parametrize("page", sorted({block.page for block in CONSOLE}), ids=lambda p: p.name)
def test_commands_work(page: Path, folder: Callable[[Path], None]) -> None:
    folder(page)
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    code = "".join(block.code for block in CONSOLE if block.page == page)
    printed = ""
    for line in code.splitlines():
        if not line.startswith("$ "):
            assert line in printed.splitlines()
            continue
        program, *arguments = shlex.split(line.removeprefix("$ "), comments=True)
        if program == "make":
            assert set(arguments) <= targets, line
        elif program == "flowrt":
            done = CliRunner().invoke(command_line, arguments)
            printed = done.output
            assert done.exit_code == 0, f"{line}\n{printed}"
        else:
            assert program in ("pip", "cat"), f"{line} is a command that nobody tries"


def test_links_between_pages_lead_somewhere() -> None:
    broken: list[str] = []
    for page in PAGES:
        text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
        targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
        there = page.relative_to(ROOT)
        broken += [f"{there}: {t}" for t in targets if not (page.parent / t).exists()]

    assert not broken


def test_the_index_lists_every_guide() -> None:
    for index in (ROOT / "README.md", ROOT / "docs" / "index.md"):
        text = index.read_text(encoding="utf-8")
        missing = [p.name for p in (ROOT / "docs/guides").glob("*.md") if p.name not in text]
        assert not missing, f"{index.name} does not list {missing}"


def test_the_reference_has_every_public_name() -> None:
    # Named there one by one: what reads the code for the docs does not run it, so it sees neither a
    # list that is made, nor a function whose module has its name.
    facade = (ROOT / "docs/reference/index.md").read_text(encoding="utf-8")
    kit = (ROOT / "docs/reference/testing.md").read_text(encoding="utf-8")

    assert re.findall(r"^        - (\w+)$", facade, re.MULTILINE) == list(flowrt.__all__)
    for name in flowrt.testing.__all__:
        hidden = f"{flowrt.testing.__name__}.{name}" in sys.modules
        assert not hidden or f"::: flowrt.testing.{name}.{name}\n" in kit, name


async def _async_numbers() -> Any:
    yield 1


SOURCES = {
    "`FileSource`": flowrt.FileSource("orders.jsonl"),
    "`SqliteSource`": flowrt.SqliteSource("shop.db", "orders"),
    "`SocketSource`": flowrt.SocketSource("localhost", 9999),
    "`RateSource`": flowrt.RateSource(1),
    "`PositionedSource`": flowrt.PositionedSource(lambda position: []),
    "`IterableSource` of a list, a range, a callable": flowrt.IterableSource([1]),
    "`IterableSource` of a generator or an async iterator": flowrt.IterableSource(iter([1])),
    "`Ingest` with a journal": flowrt.Ingest("orders", journal="journal"),
    "`Ingest` without one": flowrt.Ingest("orders"),
}
SINKS = {
    "`FileSink`": flowrt.FileSink("results"),
    "`SqliteSink`": flowrt.SqliteSink("shop.db", "totals"),
    "`MemorySink`": flowrt.MemorySink(),
    "`LiveSink`": flowrt.LiveSink(),
    '`output(when="committed")`': flowrt.JobOutput("alerts", when="committed"),
    "`output()`": flowrt.JobOutput("alerts"),
    "`ConsoleSink`": flowrt.ConsoleSink(),
    "`ForeachSink`": flowrt.ForeachSink(print),
}


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "docs/guides/guarantees.md"], ids=str)
def test_the_table_of_guarantees_is_what_the_code_says(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    lines = text[text.index("| source | `FileSink`") - 1 :].split("\n")
    _, columns, _, *rows = lines[: 3 + len(SOURCES)]
    titles = [title.strip() for title in columns.strip("|").split("|")][1:]
    checked = 0
    for row in rows:
        source, *promises = [cell.strip() for cell in row.strip("|").split("|")]
        for title, promise in zip(titles, promises, strict=True):
            for sink in title.split(", "):
                assert guarantee(SOURCES[source], SINKS[sink], "exactly_once") == promise, row
                checked += 1

    assert checked == len(SOURCES) * len(SINKS)
    assert not flowrt.IterableSource(_async_numbers()).replayable
    assert flowrt.IterableSource(lambda: [1]).replayable
    assert flowrt.IterableSource(range(3)).replayable
