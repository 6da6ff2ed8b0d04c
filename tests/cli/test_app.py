"""The commands as a shell sees them: what is printed where, and the exit code."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from flowrt.cli import main
from flowrt.cli.app import app
from flowrt.contract.failpoints import arm_failpoints
from tests.cli.conftest import Write

FLOWS = """
import sys
import urllib.request
import anyio
from flowrt import Context, FileSink, Flow, ForeachSink, Operator, RateSource, ReducingState

def numbers(count: int = 10, fail_at: int | None = None, out: str = "out") -> Flow:
    flow = Flow("numbers")

    def checked(number: int) -> dict[str, int]:
        if number == fail_at:
            raise ZeroDivisionError("not this one")
        return {"number": number}

    flow.source(range(count), name="range").map(checked, name="check").sink(
        FileSink(out), name="files"
    )
    return flow

def counting(step: str = "counts", state: str = "seen") -> Flow:
    class Counting(Operator[int, int]):
        seen = ReducingState(int.__add__, int, name=state)

        def process(self, value: int, ctx: Context) -> None:
            self.seen.add(1)

    flow = Flow("counting")
    flow.source([1]).key_by(abs).process(Counting, name=step).sink(ForeachSink(str), name="out")
    return flow

def other() -> Flow:
    flow = Flow("other")
    flow.source([1]).sink(ForeachSink(str))
    return flow

def endless() -> Flow:
    flow = Flow("endless")
    flow.source(RateSource(100)).sink(FileSink("out"), name="files")
    return flow

def scraped(port: int) -> Flow:
    def scrape(value: int) -> None:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            print(answer.read().decode())

    flow = Flow("scraped")
    flow.source([1]).sink(ForeachSink(lambda value: anyio.to_thread.run_sync(scrape, value)))
    return flow

class Slow(Operator[int, int]):
    async def open(self, ctx: Context) -> None:
        print("opening", file=sys.stderr, flush=True)
        await anyio.sleep_forever()

    def process(self, value: int, ctx: Context) -> None: ...

def slow() -> Flow:
    flow = Flow("slow")
    flow.source([1]).process(Slow).sink(ForeachSink(print))
    return flow

def stuck() -> Flow:
    flow = Flow("stuck")
    flow.source(RateSource(100)).sink(ForeachSink(lambda value: anyio.sleep_forever()))
    return flow
"""


def flowrt(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def numbers() -> list[int]:
    """What the committed files hold."""
    parts = sorted(Path("out").glob("part-*.jsonl"))
    return [json.loads(line)["number"] for part in parts for line in part.read_text().split()]


@pytest.fixture
def flows(module: Write) -> Iterator[str]:
    yield module(FLOWS)
    arm_failpoints(None)


def test_a_flow_runs_to_its_end(flows: str) -> None:
    done = flowrt("run", f"{flows}:numbers", "--checkpoints", "kept")

    assert done.exit_code == 0, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("numbers: starting from nothing\n")
    assert "finished: 10 records in" in done.stderr
    assert done.stderr.endswith("; epoch 1 is committed\n")
    assert numbers() == list(range(10))


def test_the_same_command_again_finds_nothing_new(flows: str) -> None:
    command = ["run", f"{flows}:numbers", "--checkpoints", "kept"]
    flowrt(*command)

    again = flowrt(*command)

    assert again.exit_code == 0, again.stderr
    assert "numbers: continuing from epoch 1 (10 records so far)\n" in again.stderr
    assert "finished: nothing new to read: all 10 records were there already" in again.stderr
    assert numbers() == list(range(10))


def test_quiet_says_nothing_of_a_good_end(flows: str) -> None:
    done = flowrt("run", f"{flows}:numbers", "--quiet")

    assert done.exit_code == 0
    assert done.output == ""


def test_metrics_are_served_while_it_runs(flows: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])

    done = flowrt("run", f"{flows}:scraped", "--param", f"port={port}", "--metrics-port", port)

    assert done.exit_code == 0, done.stderr
    assert f"scraped: metrics on http://127.0.0.1:{port}/metrics\n" in done.stderr
    assert 'flowrt_up{flow="scraped"} 1.0' in done.stdout
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(port)))


def test_without_the_extra_it_says_what_to_install(
    flows: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.delitem(sys.modules, "flowrt.observe.prometheus", raising=False)

    done = flowrt("run", f"{flows}:numbers", "--metrics-port", "0")

    assert done.exit_code == 2
    assert "pip install 'flowrt[prometheus]'" in " ".join(done.stderr.split())
    assert not Path("out").exists()


def test_a_port_in_use_is_a_wrong_command(flows: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = flowrt("run", f"{flows}:numbers", "--metrics-port", port)

    assert done.exit_code == 2
    assert f"metrics cannot be served on 127.0.0.1:{port}" in " ".join(done.stderr.split())
    assert not Path("out").exists()


def test_a_failure_is_one_paragraph(flows: str) -> None:
    done = flowrt("run", f"{flows}:numbers", "--param", "fail_at=7", "--checkpoints", "kept")

    assert done.exit_code == 1
    assert "Traceback" not in done.stderr
    assert "numbers: failed: " in done.stderr
    told = done.stderr.splitlines()[-1]
    assert told.startswith("flowrt: OperatorError: ")
    assert "'check'" in told
    assert "ZeroDivisionError" in told
    assert "not this one" in told


def test_where_it_failed_is_shown_when_asked_for(flows: str) -> None:
    done = flowrt("run", f"{flows}:numbers", "--param", "fail_at=7", "--traceback")

    assert done.exit_code == 1
    assert "Traceback (most recent call last)" in done.stderr
    assert "in checked" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{}:nothing"], "has no 'nothing'"),
        (["{}:numbers", "--param", "count"], "is not of the form name=value"),
        (["{}:numbers", "--param", "amount=1"], "It takes: count: int = 10, fail_at"),
        (["{}:numbers", "--restart", "maybe"], "--restart 'maybe' is unknown"),
        (["{}:numbers", "--epoch-interval", "often"], "--epoch-interval 'often' is not a durat"),
        (["{}:numbers", "--epoch-interval", "0s"], "--epoch-interval 0s is too short"),
        (["{}:numbers", "--restart", "fixed:1s:0"], "--restart fixed:1s:0 never tries again"),
        (
            ["{}:numbers", "--delivery", "exactly_once"],
            "--delivery exactly_once needs a checkpoint folder: pass --checkpoints, or --deliv",
        ),
        (
            ["{}:numbers", "--delivery", "at_most_once", "--checkpoints", "x"],
            "--delivery at_most_once keeps no checkpoints: leave --checkpoints out",
        ),
        (["{}:numbers", "--restart", "backoff"], "--restart needs a checkpoint folder: pass --ch"),
        (["{}:numbers", "--metrics-port", "70000"], "Invalid value for '--metrics-port'"),
        (["{}:numbers", "--param", "out="], "the folder of a FileSink is empty text: name one"),
        (["{}:numbers", "--take-over"], "--take-over needs a checkpoint folder"),
        (["{}:numbers", "--delivery", "twice"], "Invalid value"),
        (["{}:numbers", "--no-such-option"], "No such option"),
        (["no_such_module:flow"], "there is no module 'no_such_module'"),
    ],
)
def test_a_wrong_command_runs_nothing(flows: str, arguments: Sequence[str], message: str) -> None:
    done = flowrt("run", *(argument.format(flows) for argument in arguments))

    assert done.exit_code == 2
    assert message in " ".join(done.stderr.replace("│", " ").split())
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--checkpoints", "file"], "file is no folder, or lies below a file"),
        (["--checkpoints", "file/below"], "file/below is no folder, or lies below a file"),
        (["--checkpoints", ""], "--checkpoints '' is no folder: pass one"),
        (["--checkpoints", "of-another"], "checkpoints of flow 'other', not of 'numbers'"),
        (
            ["--checkpoints", "of-another", "--restart", "fixed:1ms:2"],
            "checkpoints of flow 'other', not of 'numbers'",
        ),
        (["--checkpoints", "new", "--restore", "nowhere"], "no savepoint in nowhere: no such f"),
        (["--checkpoints", "new", "--restore", "file"], "no savepoint in file: no such folder"),
        (["--checkpoints", "new", "--restore", "empty"], "in empty: no manifest lies there"),
        (["--checkpoints", "new", "--restore", ""], "--restore '' is no folder: pass one"),
        (["--checkpoints", "new", "--restore", "of-another"], "'other', not of 'numbers'"),
        (["--checkpoints", "used", "--restore", "nowhere"], "leave --restore out to go on from"),
        (["--checkpoints", "used", "--restore", "used-2"], "used already holds checkpoints"),
        (["--restore", "used"], "--restore needs a checkpoint folder: pass --checkpoints"),
    ],
)
def test_a_wrong_folder_is_a_wrong_command(
    flows: str, options: Sequence[str], message: str
) -> None:
    Path("file").touch()
    Path("empty").mkdir()
    for folder in ("used", "used-2"):
        flowrt("run", f"{flows}:numbers", "--checkpoints", folder, "--param", f"out={folder}-out")
    flowrt("run", f"{flows}:other", "--checkpoints", "of-another")

    done = flowrt("run", f"{flows}:numbers", *options)

    assert done.exit_code == 2, done.stderr
    assert message in done.stderr
    assert "next try" not in done.stderr
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("step=others", "no longer has: 'counts'"),
        ("step=others", "or let the state go: --allow-dropped-state counts"),
        ("state=others", "declares none of that name"),
        ("state=others", "or let it go: --allow-dropped-state counts.seen"),
    ],
)
def test_a_flow_that_does_not_fit_its_checkpoints_is_a_wrong_command(
    flows: str, changed: str, message: str
) -> None:
    command = ["run", f"{flows}:counting", "--checkpoints", "kept"]
    assert flowrt(*command).exit_code == 0

    done = flowrt(*command, "--param", changed, "--restart", "fixed:1ms:2")

    assert done.exit_code == 2, done.stderr
    assert message in done.stderr
    assert "next try" not in done.stderr


def test_failpoints_come_from_the_environment(
    flows: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FLOWRT_FAILPOINTS", "manifest.renamed=raise")
    monkeypatch.setenv("FLOWRT_FAILPOINTS_LOG", str(tmp_path / "hits"))

    done = flowrt("run", f"{flows}:numbers", "--checkpoints", "kept")

    assert done.exit_code == 1
    assert "failpoint manifest.renamed was told to raise at hit 1" in done.stderr
    assert (tmp_path / "hits").read_text().split()[-1] == "manifest.renamed"


def test_a_restart_goes_on_from_the_last_epoch(flows: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWRT_FAILPOINTS", "sink.prepared=raise")

    command = ["run", f"{flows}:numbers", "--checkpoints", "kept", "--restart", "fixed:1ms:2"]
    done = flowrt(*command)

    assert done.exit_code == 0, done.stderr
    assert "WARNING flowrt: flow numbers failed, next try in 1 ms" in done.stderr
    assert numbers() == list(range(10))


# ------------------------------------------------------------------------------------- signals


@contextmanager
def running(
    target: str, *options: str, until: str = ": running, ", command: str = "run"
) -> Iterator[subprocess.Popen[str]]:
    """A command in a process of its own, past its first line of progress."""
    whole = [sys.executable, "-m", "flowrt.cli", command, target, *options]
    with subprocess.Popen(
        whole, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"}
    ) as process:
        try:
            read_until(process, until)
            yield process
        finally:
            process.kill()


def read_until(process: subprocess.Popen[str], part: str) -> None:
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if part in line:
            return
    raise AssertionError(f"{part!r} was never said, but:\n{said}")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such shell")
@pytest.mark.parametrize(
    "closed",
    [
        *("<&-", ">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"),
        *(["2>/dev/full"] if Path("/dev/full").exists() else []),
    ],
)
def test_closed_and_full_standard_streams_do_no_harm(flows: str, closed: str) -> None:
    command = f"exec {sys.executable} -m flowrt.cli run {flows}:numbers {closed}"
    shell = ["sh", "-c", command]
    done = subprocess.run(shell, check=False, capture_output=True, text=True, timeout=60)

    assert done.returncode == 0, done.stderr
    (part,) = Path("out").glob("part-*")
    assert len(part.read_text().splitlines()) == 10
    assert done.stdout == ""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_first_signal_drains(flows: str, sent: signal.Signals) -> None:
    with running(f"{flows}:endless", "--checkpoints", "kept") as process:
        process.send_signal(sent)
        _, said = process.communicate(timeout=30)

    assert process.returncode == 0
    assert "endless: draining, so that the last epoch commits" in said
    assert "is committed, and the same command goes on from there" in said


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_a_second_signal_stops_at_once(flows: str) -> None:
    with running(f"{flows}:stuck", "--checkpoints", "kept") as process:
        process.send_signal(signal.SIGINT)
        read_until(process, "draining")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)

    assert process.returncode == 130
    assert "stuck: stopping at once" in said
    assert "Traceback" not in said


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_before_it_runs_there_is_nothing_to_drain(flows: str) -> None:
    with running(f"{flows}:slow", until="opening") as process:
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=30)

    assert process.returncode == 130
    assert said.endswith("slow: stopped before it began\n")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_a_folder_has_one_owner(flows: str) -> None:
    with running(f"{flows}:endless", "--checkpoints", "kept"):
        second = flowrt("run", f"{flows}:endless", "--checkpoints", "kept")

    assert second.exit_code == 3
    assert second.stderr.startswith("flowrt: LeaseError: ")
    assert "or take the folder over (--take-over) if that instance is lost" in second.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize("command", ["run", "explain"])
@pytest.mark.parametrize("source", ["", "def flow():\n    "])
def test_ctrl_c_before_a_flow_runs_is_one_line(module: Write, command: str, source: str) -> None:
    hangs = "import sys, time; print('here', file=sys.stderr, flush=True); time.sleep(60)\n"
    target = module(f"{source}{hangs}")

    with running(f"{target}:flow", until="here", command=command) as process:
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)

    assert process.returncode == 130
    assert said == "flowrt: stopped by Ctrl-C\n"


@pytest.mark.parametrize(
    "command",
    [["checkpoints", "list"], ["checkpoints", "verify"], ["deadletters", "list"]],
)
def test_ctrl_c_while_a_folder_is_read_is_one_line(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("anyio.run", stop)

    done = flowrt(*command, str(tmp_path))

    assert done.exit_code == 130
    assert done.output == "flowrt: stopped by Ctrl-C\n"


def test_ctrl_c_while_the_command_line_is_imported_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("flowrt.cli.app.main", stop)

    with pytest.raises(SystemExit) as left:
        main()

    assert left.value.code == 130
    assert capsys.readouterr().err == "flowrt: stopped by Ctrl-C\n"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such pipes")
@pytest.mark.parametrize("command", ["run", "explain"])
def test_a_pipe_that_nobody_reads_is_no_error(flows: str, command: str) -> None:
    reads, writes = os.pipe()
    os.close(reads)
    is_run = command == "run"
    try:
        done = subprocess.run(
            [sys.executable, "-m", "flowrt.cli", command, f"{flows}:numbers"],
            check=False,
            text=True,
            timeout=60,
            stdout=subprocess.PIPE if is_run else writes,
            stderr=writes if is_run else subprocess.PIPE,
        )
    finally:
        os.close(writes)

    assert (done.stdout or "") + (done.stderr or "") == ""
    if is_run:
        assert done.returncode == 0
        assert numbers() == list(range(10))


def test_what_an_old_terminal_cannot_show_is_no_error(
    flows: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    flowrt("run", f"{flows}:numbers", "--checkpoints", "kept")

    command = [sys.executable, "-m", "flowrt.cli", "checkpoints", "show", "kept"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)

    assert done.returncode == 0, done.stderr
    assert "\\u2013" in done.stdout


# ------------------------------------------------------------------------------- other commands


def test_a_flow_is_explained(flows: str) -> None:
    done = flowrt("explain", f"{flows}:numbers")

    assert done.exit_code == 0
    assert "range -> files: exactly-once" in done.stdout
    assert flowrt("explain", f"{flows}:numbers", "--mermaid").stdout.startswith("flowchart LR\n")
    weaker = flowrt("explain", f"{flows}:numbers", "--delivery", "at_most_once")
    assert "range -> files: at-most-once" in weaker.stdout


def test_a_flow_that_cannot_be_explained_is_an_error(flows: str) -> None:
    done = flowrt("explain", f"{flows}:nothing")

    assert done.exit_code == 2
    assert "has no 'nothing'" in done.stderr


def test_the_version_is_that_of_the_package() -> None:
    done = flowrt("--version")

    assert done.exit_code == 0
    assert done.stdout.startswith("flowrt 0.")


@pytest.mark.parametrize("command", [[], ["run"], ["explain"], ["checkpoints", "verify"]])
def test_every_command_has_help_with_the_exit_codes(command: list[str]) -> None:
    done = flowrt(*command, "--help")

    assert done.exit_code == 0
    assert "Exit codes: 0 the input ended" in done.stdout
