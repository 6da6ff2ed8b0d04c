"""A flow that would read its own results is refused when it is built."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowrt import FileSink, FileSource, Flow, GraphError


def flow(path: str, sink: FileSink, *, watch: bool = True) -> Flow:
    flow = Flow("copy")
    flow.source(FileSource(path, "text", watch=watch), name="in").sink(sink, name="out")
    return flow


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "data" / "out").mkdir(parents=True)
    (tmp_path / "link").symlink_to("data/out")
    (tmp_path / "data" / "linked").symlink_to("../data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_error_names_source_sink_and_folder() -> None:
    with pytest.raises(GraphError) as error:
        flow("data/out", FileSink("data/out")).build()

    assert str(error.value) == (
        "source 'in' reads what sink 'out' writes: data/out/part-00000001-0-000000.jsonl and all "
        "that follow are input for files data/out (text, watched), so the flow would read its own "
        "results again and again. Give the sink a folder of its own, or the source a pattern that "
        "leaves the sink's files out"
    )


@pytest.mark.parametrize(
    ("path", "folder"),
    [
        ("data/out/", "./data//out"),
        ("{here}/data/out", "data/out"),
        ("data/out", "{here}/data/out"),
        ("data/../data/out", "data/out"),
        ("link", "data/out"),
        ("data/out", "link"),
        ("data/out/*.jsonl", "data/out"),
        ("link/part-*", "data/out"),
        ("data/*/*.jsonl", "data/out"),
        ("data/**/*.jsonl", "data/out"),
        ("data/**", "data/out"),
        ("**/*.jsonl", "data/new/deep"),
        ("*/out/p?rt-*.jsonl", "data/out"),
        ("data/**/out/*", "data/out"),
        ("*", "."),
        (".", "."),
        ("new", "new"),
        ("data/linked/*/*", "data/out"),
    ],
)
@pytest.mark.parametrize("watch", [True, False])
def test_a_flow_does_not_read_what_it_writes(
    path: str, folder: str, here: Path, *, watch: bool
) -> None:
    with pytest.raises(GraphError, match="source 'in' reads what sink 'out' writes"):
        flow(path.format(here=here), FileSink(folder.format(here=here)), watch=watch).build()


@pytest.mark.parametrize(
    ("path", "sink"),
    [
        ("data/in", FileSink("data/out")),
        ("data", FileSink("data/out")),
        ("data/*", FileSink("data/out")),
        ("data/out", FileSink("data")),
        ("data/out/*.csv", FileSink("data/out")),
        ("data/out/*.jsonl", FileSink("data/out", "csv")),
        ("data/out/*.gz", FileSink("data/out")),
        ("data/out/in-*.jsonl", FileSink("data/out")),
        ("data/out/part-*", FileSink("data/out", prefix="result")),
        ("data/out", FileSink("data/out", prefix="_result")),
        ("data/out/lines.txt", FileSink("data/out")),
        ("data/out/*/*.jsonl", FileSink("data/out")),
        ("data/**/*.jsonl", FileSink("data/_out")),
        ("data/**/in/*.jsonl", FileSink("data/out")),
    ],
)
def test_a_flow_may_read_beside_what_it_writes(path: str, sink: FileSink) -> None:
    flow(path, sink).build()


def test_only_its_own_sinks_are_looked_at() -> None:
    first, second = flow("data/in", FileSink("data/out")), flow("data/out", FileSink("data/more"))

    first.build()
    second.build()
