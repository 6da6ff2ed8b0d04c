from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flowrt.connectors.files.lines import Lines


def cut_up(data: bytes, sizes: list[int]) -> list[bytes]:
    """Cut data into blocks of the given sizes, over and over."""
    blocks: list[bytes] = []
    at = 0
    while at < len(data):
        size = sizes[len(blocks) % len(sizes)]
        blocks.append(data[at : at + size])
        at += size
    return blocks


@given(
    lines=st.lists(st.binary(max_size=6).map(lambda line: line.replace(b"\n", b"-"))),
    newline_at_end=st.booleans(),
    sizes=st.lists(st.integers(1, 9), min_size=1),
    limit=st.integers(1, 5),
)
def test_lines_are_the_same_however_blocks_and_limits_fall(
    lines: list[bytes], newline_at_end: bool, sizes: list[int], limit: int
) -> None:
    data = b"\n".join(lines) + (b"\n" if newline_at_end else b"")
    window = Lines(offset=100)
    pieces: list[bytes] = []

    def take() -> None:
        while True:
            piece, count = window.cut(limit)
            if not count:
                return
            assert count <= limit
            assert count == piece.count(b"\n") + (not piece.endswith(b"\n"))
            window.take(len(piece))
            pieces.append(piece)
            assert window.offset == 100 + len(b"".join(pieces))

    for block in cut_up(data, sizes):
        window.feed(block)
        take()
    assert window.fed_until == 100 + len(data)
    window.end()
    take()

    assert b"".join(pieces) == data
    assert all(piece.endswith(b"\n") for piece in pieces[:-1])


def test_lines_that_were_not_taken_stay() -> None:
    window = Lines()
    window.feed(b"a\nb\nc")

    assert window.cut(1) == (b"a\n", 1)
    window.take(2)
    window.feed(b"c\nd")

    assert window.cut(10) == (b"b\ncc\n", 2)
    assert (window.offset, window.whole, window.unfinished) == (2, 5, 1)
    assert window.beginning(6) == b"b\ncc\nd"
