"""What every task does once it has cut its state.

Make it durable beside the stream, then say so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flowrt.contract.failpoints import failpoint
from flowrt.contract.snapshot import Acknowledge, OperatorSnapshot, Send
from flowrt.contract.world import Clock
from flowrt.dataflow.chains.chain import Cut


@dataclass(frozen=True, slots=True)
class Desk:
    """Who a task is to the coordinator, and how to reach it."""

    task: str
    subtask: int
    send: Send
    clock: Clock


async def acknowledge(
    desk: Desk,
    epoch: int,
    cuts: Sequence[Cut],
    others: Sequence[OperatorSnapshot] = (),
    *,
    align_ns: int = 0,
    freeze_ns: int = 0,
) -> None:
    """Write the frozen states, then acknowledge.

    `CheckpointError` where a state cannot be made durable.

    `others` are parts of the snapshot that are durable already or need no file: positions,
    committables.
    """
    started = desk.clock.monotonic_ns()
    parts = list(others)
    for cut in cuts:
        files = await cut.writer.write(epoch, cut.frozen) if cut.writer is not None else []
        parts.append(
            OperatorSnapshot(
                cut.id,
                desk.subtask,
                files,
                cut.data,
                watermark=cut.watermark,
                shapes=cut.shapes,
            )
        )
    write_ns = desk.clock.monotonic_ns() - started
    desk.send(Acknowledge(desk.task, desk.subtask, epoch, parts, align_ns, freeze_ns, write_ns))
    failpoint("task.acknowledged")
