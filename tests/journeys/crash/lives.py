"""One life of a job: a process of its own that runs `flowrt run` until it ends or is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from flowrt.runtime.failpoints import LOG, RULES
from tests.journeys.crash.deaths import Death

ROOT = Path(__file__).parents[3]
COMMAND = (sys.executable, "-c", "from flowrt.cli import main; main()", "run")
EPOCHS = "50ms"
PATIENCE_SECONDS = 60.0
LOOK_SECONDS = 0.001


@dataclass(frozen=True, slots=True)
class Program:
    """A flow and how to call it; `rate` is in records a second, for lives that are cut short."""

    target: str
    params: dict[str, str]
    rate: int
    delivery: str = "exactly_once"
    command: Sequence[str] = COMMAND


@dataclass(frozen=True, slots=True)
class Life:
    """How a life went. `hits` are the failpoints it passed, `killed` whether it died as it should.

    `own_hand`: it died at a failpoint that it was told to die at.
    """

    hits: list[str]
    killed: bool
    own_hand: bool = False


@dataclass(slots=True)
class Home:
    """The folders of a job that lives many times: its checkpoints, its output, its logs."""

    folder: Path
    lives: int = 0
    checkpoints: Path = field(init=False)
    output: Path = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        self.checkpoints = self.folder / "checkpoints"
        self.output = self.folder / "output"

    def next_log(self) -> Path:
        self.lives += 1
        return self.folder / f"hits-{self.lives}"


class UnexpectedEndError(AssertionError):
    """A process failed of itself, or did not come to its end."""


def live(program: Program, home: Home, death: Death | None = None) -> Life:
    """Run the job until `death`, or to the end of its input, whichever comes first.

    `UnexpectedEndError` where the job fails, or neither happens in time.
    """
    log = home.next_log()
    errors = log.with_suffix(".err")
    environment = {**os.environ, RULES: death.rules if death else "", LOG: str(log)}
    with errors.open("wb") as file:
        process = subprocess.Popen(
            _command(program, home, death),
            cwd=ROOT,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=file,
        )
    try:
        by_us = _wait(process, log, death)
    finally:
        process.kill()
        process.wait()
    hits = log.read_text().split() if log.exists() else []
    if process.returncode == 0:
        return Life(hits, killed=False)
    if process.returncode != -signal.SIGKILL:
        raise UnexpectedEndError(
            f"life {home.lives} in {home.folder} ended with {process.returncode} before its death "
            f"({death}): {errors.read_text()[-2_000:]}"
        )
    return Life(hits, killed=True, own_hand=not by_us)


def _command(program: Program, home: Home, death: Death | None) -> list[str]:
    params = {**program.params, "out": str(home.output)}
    if death is not None and not death.rush:
        params["rate"] = str(program.rate)
    given = [text for name, value in params.items() for text in ("--param", f"{name}={value}")]
    options = ["--checkpoints", str(home.checkpoints), "--epoch-interval", EPOCHS, "--quiet"]
    options += ["--delivery", program.delivery]
    if death is not None and death.raises:
        options += ["--restart", "fixed:1ms:100"]
    return [*program.command, program.target, *options, *given]


def _wait(process: subprocess.Popen[bytes], log: Path, death: Death | None) -> bool:
    """Wait until the process ends, or kill it at its time; say whether it was killed here."""
    if death is None or death.failpoint is not None:
        try:
            process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            raise UnexpectedEndError(
                f"{death or 'the end of the input'} did not come within {PATIENCE_SECONDS} s"
            ) from None
        return False
    # The log's first line is written when the lease is taken: there the recovery begins.
    give_up = time.monotonic() + PATIENCE_SECONDS
    while process.poll() is None and not (log.exists() and log.stat().st_size):
        if time.monotonic() > give_up:
            raise UnexpectedEndError(f"the process did not begin within {PATIENCE_SECONDS} s")
        time.sleep(LOOK_SECONDS)
    time.sleep(death.after_ms / 1_000)
    if process.poll() is None:
        process.kill()
        return True
    return False
