"""Who has still to acknowledge."""

from __future__ import annotations

import pytest

from flowrt.checkpoint.pending import Pending
from flowrt.contract.errors import CheckpointError
from flowrt.contract.snapshot import Acknowledge


def ack(task: str, subtask: int, epoch: int = 5) -> Acknowledge:
    return Acknowledge(task, subtask, epoch, [])


def test_the_last_acknowledgement_gives_all_of_them_once_and_in_order() -> None:
    pending = Pending(5, {"source": 1, "count": 2})

    assert pending.acknowledge(ack("count", 1)) is None
    assert pending.acknowledge(ack("source", 0)) is None
    assert pending.missing == [("count", 0)]
    assert pending.acknowledge(ack("count", 0)) == [
        ack("count", 0),
        ack("count", 1),
        ack("source", 0),
    ]
    assert pending.acknowledge(ack("count", 0)) is None


def test_a_second_and_a_late_one_change_nothing() -> None:
    pending = Pending(5, {"source": 2})

    assert pending.acknowledge(ack("source", 0)) is None
    assert pending.acknowledge(ack("source", 0)) is None
    assert pending.acknowledge(ack("source", 1, epoch=4)) is None
    assert pending.missing == [("source", 1)]


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        (ack("other", 0), "no such subtask"),
        (ack("source", 2), "no such subtask"),
        (ack("source", -1), "no such subtask"),
        (ack("source", 0, epoch=6), "newest that was opened is 5"),
    ],
)
def test_one_that_cannot_be_is_an_error(message: Acknowledge, complaint: str) -> None:
    with pytest.raises(CheckpointError, match=complaint):
        Pending(5, {"source": 2}).acknowledge(message)
