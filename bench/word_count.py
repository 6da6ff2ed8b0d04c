"""What does a word count (flat_map, key_by, running count) cost against a bare loop with a dict?"""

from __future__ import annotations

from bench.measure import Answer, NullSink, against, millions
from flowrt import Flow, run

LINES = 250_000
WORDS_A_LINE = 10
RUN = 1024
TEXT = [f"the quick brown fox jumps over the lazy dog {n % 5000}" for n in range(LINES)]


def words(line: str) -> list[str]:
    """Split a line."""
    return line.split()


def itself(word: str) -> str:
    """Return the key of a word."""
    return word


def bare() -> None:
    """The loop that a person would write."""
    counts: dict[str, int] = {}
    out: list[tuple[str, int]] = []
    for line in TEXT:
        for word in words(line):
            key = itself(word)
            count = counts[key] = counts.get(key, 0) + 1
            out.append((key, count))
        if len(out) >= RUN:
            out = []


def flow() -> None:
    """The same functions as a flow."""
    counting = Flow("word-count")
    counting.source(TEXT).flat_map(words).key_by(itself).count().sink(NullSink())
    run(counting)


def main() -> Answer:
    """Measure."""
    updates = LINES * WORDS_A_LINE
    ratio, reference, measured = against(bare, flow)
    detail = f"bare {millions(updates, reference)}, flowrt {millions(updates, measured)}"
    return Answer(__doc__ or "", ratio, "at least 0.5, aim 0.8", detail)
