"""The manifest: readable, whole or refused."""

from __future__ import annotations

import json

import msgspec
import pytest

from flowrt.checkpoint.manifest import (
    EncodedSplits,
    FormatError,
    Manifest,
    decode_manifest,
    encode_manifest,
)
from flowrt.checkpoint.names import Made
from flowrt.checkpoint.sealed import seal
from flowrt.contract.errors import CheckpointError
from flowrt.contract.snapshot import OperatorSnapshot, SplitState, StateFile

MANIFEST = Manifest(
    flow="orders",
    epoch=7,
    generation=2,
    created_ms=1_700_000_000_000,
    delivery="exactly_once",
    sinks=["out"],
    parallelism={"count": 2, "out": 1},
    operators=[
        OperatorSnapshot("in", 0, splits=[SplitState("a.csv", {"n": 1}, 12, watermark=(1, b"x"))]),
        OperatorSnapshot("count", 1, [StateFile("b", 20, "ff", 2, 64, 127)], watermark=-5),
        OperatorSnapshot("count", 0, [StateFile("a", 10, "00", 1, 0, 63)], data=[None, 1.5]),
        OperatorSnapshot("out", 1),
        OperatorSnapshot("out", 0, committable={"name": b"\xff"}),
    ],
)


def test_a_manifest_comes_back() -> None:
    assert decode_manifest(encode_manifest(MANIFEST), "m.json") == MANIFEST


def test_a_manifest_is_json_that_people_can_read() -> None:
    data = encode_manifest(MANIFEST)

    assert json.loads(data)["manifest"]["flow"] == "orders"
    assert data.count(b"\n") > 20


ENDED = SplitState("a.csv", "in/a.csv", {"byte": 7, "start": 1}, ended=True, records=3, version=7)
OPEN = SplitState("b.csv", "in/b.csv", {"byte": 2, "start": 5}, records=1, version=9)


def with_splits(*splits: SplitState) -> Manifest:
    part = OperatorSnapshot("in", 0, splits=list(splits))
    return msgspec.structs.replace(MANIFEST, operators=[part, *MANIFEST.operators[1:]])


def test_a_split_is_a_line_without_what_it_does_not_say() -> None:
    data = encode_manifest(with_splits(ENDED, OPEN))

    line = (
        b'{"id":"b.csv","data":"in/b.csv","position":{"byte":2,"start":5},"records":1,"version":9}'
    )
    assert line in data.splitlines()


def test_a_manifest_with_every_field_of_a_split_is_read() -> None:
    """As they were written before splits became lines."""
    manifest = with_splits(ENDED, OPEN, SplitState("c", None, None, missing_since=5))
    plain = msgspec.to_builtins(manifest)
    for split in plain["operators"][0]["splits"]:
        split |= {name: split.get(name) for name in ("watermark", "version", "missing_since")}
        split |= {"idle": False, "ended": split.get("ended", False)}
        split.setdefault("records", 0)
    plain["operators"][-1]["committable"] = {"name": {"$bytes": "/w=="}}

    assert decode_manifest(seal("manifest", msgspec.json.encode(plain)), "m.json") == manifest


def test_a_split_that_ended_is_encoded_once_for_all_manifests() -> None:
    splits = EncodedSplits()
    states = [ENDED, OPEN, msgspec.structs.replace(ENDED, id="c.csv", watermark=(1, b"x"))]
    for given in (states, states, states[1:], [], states[::-1], [*states, ENDED]):
        manifest = with_splits(*given)
        assert encode_manifest(manifest, splits) == encode_manifest(manifest)
        assert decode_manifest(encode_manifest(manifest, splits), "m.json") == manifest

    before = splits.lines(with_splits(ENDED, OPEN).operators)[0]
    after = splits.lines(with_splits(ENDED, OPEN).operators)[0]
    assert before == after
    assert before[0] is after[0]
    assert before[1] is not after[1]


def test_what_it_knows() -> None:
    assert MANIFEST.made == Made(generation=2, epoch=7)
    assert [part.subtask for part in MANIFEST.parts("count")] == [0, 1]
    assert MANIFEST.committables("out") == [{"name": b"\xff"}]
    assert sorted(MANIFEST.state_files()) == ["a", "b"]
    assert MANIFEST.size() == 30


def test_every_flipped_byte_and_every_cut_is_found() -> None:
    data = encode_manifest(MANIFEST)
    flipped = [data[:i] + bytes([data[i] ^ 0x01]) + data[i + 1 :] for i in range(len(data))]
    cut = [data[:size] for size in range(len(data))]

    for damaged in [*flipped, *cut, data + b"\n"]:
        with pytest.raises(CheckpointError, match=r"m\.json is torn or damaged"):
            decode_manifest(damaged, "m.json")


def test_another_format_is_refused_and_not_called_damaged() -> None:
    body = msgspec.json.encode({"format": 9, "unknown": True})

    with pytest.raises(FormatError, match=r"m\.json has format 9, this flowrt reads format 1"):
        decode_manifest(seal("manifest", body), "m.json")


@pytest.mark.parametrize(
    ("part", "named"),
    [
        (OperatorSnapshot("in", 0, splits=[SplitState("a", None, {1})]), "position of split 'a'"),
        (OperatorSnapshot("out", 0, committable=object()), "committable of operator 'out'"),
        (OperatorSnapshot("count", 0, data=object()), "operator 'count' keeps"),
    ],
)
def test_what_cannot_be_kept_is_named(part: OperatorSnapshot, named: str) -> None:
    with pytest.raises(CheckpointError, match=named):
        encode_manifest(msgspec.structs.replace(MANIFEST, operators=[part]))


def test_text_that_is_not_unicode_is_refused() -> None:
    part = OperatorSnapshot("in", 0, data="\udcff")

    with pytest.raises(CheckpointError, match="not Unicode"):
        encode_manifest(msgspec.structs.replace(MANIFEST, operators=[part]))
