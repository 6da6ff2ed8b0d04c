from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowrt.connectors.frames import Frame, Frames


def cut(text: bytes, size: int, delimiter: bytes = b"\n", max_bytes: int = 100) -> list[Frame]:
    frames = Frames(delimiter, max_bytes)
    found = [f for at in range(0, len(text), size) for f in frames.feed(text[at : at + size])]
    return found + frames.end()


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_frames_have_numbers_and_places(size: int) -> None:
    assert cut(b"one\n\nthree\nrest", size) == [
        Frame(1, 0, b"one"),
        Frame(2, 4, b""),
        Frame(3, 5, b"three"),
        Frame(4, 11, b"rest"),
    ]


@pytest.mark.parametrize("size", [1, 2, 3, 100])
@pytest.mark.parametrize("delimiter", [b"\n", b"\r\n", b"--="])
def test_what_is_too_long_is_left_out_to_its_end(size: int, delimiter: bytes) -> None:
    text = delimiter.join([b"a", b"b" * 30, b"c", b"d" * 30])

    found = cut(text, size, delimiter, max_bytes=4)

    assert [(f.number, f.too_long, f.data[:1]) for f in found] == [
        (1, False, b"a"),
        (2, True, b"b"),
        (3, False, b"c"),
        (4, True, b"d"),
    ]
    assert [f.at for f in found] == [text.index(letter) for letter in (b"a", b"b", b"c", b"d")]


@given(st.binary(max_size=40), st.integers(1, 7), st.sampled_from([b"a", b"ab", b"aab"]))
def test_however_it_is_fed(text: bytes, size: int, delimiter: bytes) -> None:
    text = bytes(b"ab"[byte % 2] for byte in text)
    whole = text.split(delimiter)
    if not whole[-1]:
        whole.pop()

    assert [frame.data for frame in cut(text, size, delimiter)] == whole
