"""Outputs of a simulated job: who iterates over them, and what they must have got."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from flowrt import Job
from flowrt.contract.waiting import sleep_ms
from flowrt.runtime.output import Policy, When
from tests.simulate.ends import Table, ViolationError

if TYPE_CHECKING:
    from tests.simulate.machine import Process


@dataclass(slots=True)
class OutputSpec:
    """An output beside a table that gets the same rows, epoch by epoch.

    `got` is what all lives of the job got, `may_repeat` whether one of them went back.
    """

    name: str
    table: Table
    policy: Policy
    when: When
    capacity: int | None
    got: list[Any] = field(default_factory=list)
    may_repeat: bool = False

    def __str__(self) -> str:
        return f"output {self.name} ({self.when}, {self.policy}, {self.capacity})"


class Reading:
    """Iterates over one output for as long as a job lives."""

    def __init__(self, spec: OutputSpec, job: Job, process: Process) -> None:
        self._spec = spec
        self._job = job
        self._process = process
        self._output = process.outputs[spec.name]
        self._restored = job.status().restored_epoch or 0
        self._got: list[Any] = []
        # Now, so that nothing is dropped before it: the task that reads begins later.
        self._values = job.output(self._output)

    async def run(self) -> None:
        """Take values until the job ends: slowly at times, and with one iterator after another."""
        process, chance = self._process, self._process.chance
        while True:
            try:
                value = await anext(self._values)
            except StopAsyncIteration:
                return
            except Exception:
                return  # what the job failed with; told by whoever waits for the job
            self._got.append(value)
            self._spec.got.append(value)
            if chance.random() < 0.05:
                await sleep_ms(process.machine.clock, chance.choice([1, 20, 100]))
            if chance.random() < 0.02:
                await self._values.aclose()
                self._values = self._job.output(self._spec.name)

    def judge(self) -> None:
        """Compare with the table, once the job has come to an end by itself."""
        status, spec = self._job.status(), self._spec
        epochs = range(self._restored + 1, (status.epoch or 0) + 1)
        wanted = _counted(row for epoch in epochs for row in spec.table.rows.get(epoch, []))
        got = _counted(self._got)
        # Where a checkpoint cannot be read an attempt goes on from the one before.
        goes_on = spec.when == "committed" and not self._process.disk_failed
        exact = goes_on or status.restarts == 0
        # One that is drained between two attempts stops at its last epoch: what came after that
        # comes again in a later life.
        surplus = got - wanted if exact else Counter(got.keys() - wanted.keys())
        if surplus and (exact or status.state == "finished"):
            raise ViolationError(f"{spec} gave what is not in the table: {list(surplus)[:5]}")
        if spec.policy == "wait" and wanted - got:
            raise ViolationError(f"{spec} did not give {list(wanted - got)[:5]}")
        lost = wanted.total() - got.total()
        if exact and lost != self._output.dropped:
            raise ViolationError(f"{spec} lost {lost} values and counts {self._output.dropped}")


def _counted(rows: Iterable[Any]) -> Counter[bytes]:
    return Counter(map(msgspec.json.encode, rows))
