"""A simulated machine: a disk, a clock, a database; and the processes on it, which may die.

Whatever a process asks of the world outside goes through `Process.touch`: there it may take time,
fail, or be the last that the process does.
"""

from __future__ import annotations

import errno
import random
from collections import Counter
from contextvars import ContextVar
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final, TypeVar

import anyio
from anyio.lowlevel import checkpoint

from flowrt import DeadLetter
from flowrt.contract.waiting import sleep_ms
from flowrt.contract.world import World
from flowrt.runtime.output import JobOutput
from flowrt.stream.stream import Stream
from flowrt.testing.memory_files import MemoryFiles
from flowrt.testing.world import ManualClock, SeededRandomness
from tests.simulate.faults import Call, DiedError, Faults, InjectedError
from tests.simulate.process_files import ProcessFiles

T = TypeVar("T")
START_MS: Final = 1_700_000_000_000

DISK_ERRORS: Final = {
    errno.ENOSPC: "No space left on device",
    errno.EIO: "Input/output error",
}

current: ContextVar[Process] = ContextVar("current")
"""The process whose code runs now."""


@dataclass
class Machine:
    """What outlives a process."""

    seed: str
    keep_trace: bool = False
    clock: ManualClock = field(default_factory=lambda: ManualClock(START_MS))
    disk: MemoryFiles = field(default_factory=lambda: MemoryFiles(lose_folders=True, atomic=True))
    processes: list[Process] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    trace: list[str] = field(default_factory=list)
    """What happened, line by line; kept only where asked for."""
    violations: list[str] = field(default_factory=list)
    """What flowrt did that it must not, where to raise would be no use."""

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self._digest = blake2b(digest_size=8)

    def note(self, line: str) -> None:
        """Add a line to the trace."""
        line = f"{self.clock.now_ms() - START_MS:>7} {line}"
        self._digest.update(line.encode())
        if self.keep_trace:
            self.trace.append(line)

    @property
    def digest(self) -> str:
        """Stands for the whole trace."""
        return self._digest.hexdigest()

    def lose_power(self, in_part: bool) -> None:
        """Let every process die, and the disk forget."""
        chance = SeededRandomness(self.chance.getrandbits(32)) if in_part else None
        for process in self.processes:
            process.end()
        self.disk.crash(chance)

    def at_failpoint(self, name: str) -> None:
        """Hear of a failpoint that some process passes."""
        process = current.get(None)
        if process is not None:
            process.at_failpoint(name)


class Process:
    """One process on a machine, with a world of its own."""

    def __init__(self, machine: Machine, faults: Faults) -> None:
        machine.processes.append(self)
        self.machine = machine
        self.faults = faults
        self.number = len(machine.processes)
        self.alive = True
        self.failed = False
        """Whether an error was injected."""
        self.disk_failed = False
        self.operations = 0
        self.hits: Counter[str] = Counter()
        self.scope = anyio.CancelScope()
        self.chance = random.Random(f"{machine.seed} process {self.number}")
        self.outputs: dict[str, JobOutput[Any]] = {}
        """The outputs of the flow that runs here."""
        self.letters: dict[str, Stream[DeadLetter]] = {}
        """The dead letters of its steps that have a tag of their own, by tag."""
        self.files = ProcessFiles(self)
        self.world = World(
            machine.clock,
            self.files,
            SeededRandomness(self.chance.getrandbits(32)),
            "simulated",
            self.number,
        )

    # ------------------------------------------------------------------------------ how it ends

    def die(self) -> None:
        """Die as the faults say, at once."""
        self.machine.note(f"{self.number} dies: {self.faults.death}")
        self.machine.counts["crashes"] += 1
        self.machine.counts[self.faults.death] += 1
        if self.faults.death == "killed":
            self.end()
        else:
            self.machine.lose_power(self.faults.death == "power lost in part")

    def end(self) -> None:
        """Be gone: nothing that this process still does has any effect."""
        if self.alive:
            self.alive = False
            self.files.unlock()
            self.scope.cancel()

    async def die_in_time(self) -> None:
        """Die after the time that the faults say, if any."""
        if self.faults.die_after_ms is not None:
            await sleep_ms(self.machine.clock, self.faults.die_after_ms)
            if self.alive:
                self.die()

    # ------------------------------------------------------------------------- what may go wrong

    async def touch(
        self, operation: str, what: str, call: Call[T], torn: Call[object] | None = None
    ) -> T:
        """Do something outside, if it comes to that; `torn` does a part of it.

        As with a worker thread, what was begun is finished, also where the caller is cancelled.
        """
        await checkpoint()
        with anyio.CancelScope(shield=True):
            if self.chance.random() < self.faults.slow:
                await sleep_ms(self.machine.clock, self.chance.choice([1, 2, 5, 20, 100]))
            if not self.alive:
                raise DiedError(operation)
            self.operations += 1
            if self.operations == self.faults.die_at_operation:
                await self._die_at(operation, what, call, torn)
            if self._fails():
                await self._fail_at(operation, what, call, torn)
            result = await call()
            self.machine.note(f"{self.number} {operation} {what}")
        return result

    async def dawdle(self) -> None:
        """Take some time, now and then: so records pile up in one place and not in another."""
        if self.alive and self.chance.random() < 0.1:
            await sleep_ms(self.machine.clock, self.chance.choice([1, 5, 20]))

    def stumble(self, error: type[Exception] = InjectedError) -> None:
        """Raise, now and then: an operator calls this where it is half done."""
        if self.alive and self.faults.stumbles and self.chance.random() < 0.02:
            self.faults.stumbles -= 1
            self._count_error("stumbles", "an operator")
            raise error("stumbled")

    def at_failpoint(self, name: str) -> None:
        """Pass a failpoint."""
        if not self.alive:
            raise DiedError(name)
        self.hits[name] += 1
        here = name, self.hits[name]
        self.machine.note(f"{self.number} at {name}")
        self.machine.counts["epochs"] += name == "commit.acknowledged"
        if here == self.faults.die_at_failpoint:
            self.machine.counts[f"died at {name}"] += 1
            self.die()
            raise DiedError(name)
        if here == self.faults.raise_at_failpoint:
            self._count_error("raised at failpoints", name)
            raise InjectedError(name)

    def _fails(self) -> bool:
        if self.faults.errors and self.chance.random() < self.faults.error_rate:
            self.faults.errors -= 1
            return True
        return False

    async def _die_at(
        self, operation: str, what: str, call: Call[T], torn: Call[object] | None
    ) -> None:
        how = self.chance.choice(["before", "in", "after"])
        self.machine.note(f"{self.number} {operation} {what}: dies {how} it")
        await self._part(how, call, torn)
        self.die()
        raise DiedError(operation)

    async def _fail_at(
        self, operation: str, what: str, call: Call[T], torn: Call[object] | None
    ) -> None:
        # A disk or a server may have done what it says it could not do; a lock is had or not.
        how = "before" if operation == "lock" else self.chance.choice(["before", "in", "after"])
        number = self.chance.choice(list(DISK_ERRORS))
        self._count_error("I/O errors", f"{operation} {what}, {how} it")
        await self._part(how, call, torn)
        raise OSError(number, DISK_ERRORS[number])

    async def _part(self, how: str, call: Call[T], torn: Call[object] | None) -> None:
        try:
            if how == "in" and torn is not None:
                await torn()
            elif how == "after":
                await call()
        except (OSError, InjectedError):
            pass  # it would have failed of itself

    def _count_error(self, kind: str, what: str) -> None:
        self.failed = True
        self.disk_failed |= kind == "I/O errors"
        self.machine.counts[kind] += 1
        self.machine.note(f"{self.number} error: {kind}, {what}")
