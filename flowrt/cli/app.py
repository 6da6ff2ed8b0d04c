"""The commands and their options; `main` is what the command `flowrt` calls."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from enum import StrEnum
from importlib.metadata import version
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from flowrt.cli.checkpoints import list_checkpoints, show_checkpoint, verify_checkpoints
from flowrt.cli.dead_letters import list_letters, replay_letters, show_letters
from flowrt.cli.display import choose_display
from flowrt.cli.exits import Exit, report, report_stop
from flowrt.cli.letters import Choice
from flowrt.cli.load import load_flow, parse_params
from flowrt.cli.options import parse_epoch_interval, parse_restart
from flowrt.cli.running import run_flow
from flowrt.cli.states import show_key
from flowrt.contract.errors import ConfigError
from flowrt.graph.explain import explain as as_text
from flowrt.graph.explain import mermaid as as_mermaid
from flowrt.runtime.failpoints import arm_from_environment


class DeliveryName(StrEnum):
    """The values of --delivery."""

    exactly_once = "exactly_once"
    at_least_once = "at_least_once"
    at_most_once = "at_most_once"


EXIT_CODES: Final = (
    "Exit codes: 0 the input ended or the flow was drained; 1 the flow failed, or a checkpoint is "
    "damaged; 2 the command, the flow or an option is wrong; 3 another instance owns the "
    "checkpoint folder, or it was deleted; 130 stopped at once on request."
)

app = typer.Typer(
    name="flowrt",
    help="Stream processing inside an async Python service.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
checkpoints_app = typer.Typer(
    help="Look into a checkpoint folder; changes nothing in it.", no_args_is_help=True
)
app.add_typer(checkpoints_app, name="checkpoints")
deadletters_app = typer.Typer(
    help="Look at dead letters that a FileSink wrote, and feed their records back.",
    no_args_is_help=True,
)
app.add_typer(deadletters_app, name="deadletters")

Target = Annotated[
    str, typer.Argument(metavar="MODULE:FLOW", help="A Flow, or a function that returns one.")
]
Params = Annotated[
    list[str], typer.Option("--param", metavar="NAME=VALUE", help="Argument of that function.")
]
Delivered = Annotated[
    DeliveryName | None,
    typer.Option(
        metavar="GUARANTEE",
        help="exactly_once (the default with checkpoints), at_least_once or at_most_once.",
    ),
]
Traceback = Annotated[bool, typer.Option("--traceback", help="Show where an error came from.")]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="A checkpoint folder.")]
Letters = Annotated[
    list[Path],
    typer.Argument(metavar="PATH...", help="Files of dead letters, or folders of a FileSink."),
]
OfOperator = Annotated[
    str | None, typer.Option("--operator", metavar="NAME", help="Only those of one operator.")
]
OfError = Annotated[
    str | None, typer.Option("--error", metavar="TYPE", help="Only those of one kind of error.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for other programs.")]


def main() -> None:
    """Run the command line and leave the process with its exit code."""
    fill_standard_streams()
    app(prog_name="flowrt")


def fill_standard_streams() -> None:
    """Open those of the descriptors 0 to 2 that the caller closed on the null device.

    The next file that is opened would become standard output, and the event loop ends the process
    where it finds its own descriptors among these.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = open(os.devnull, mode, encoding="utf-8")  # noqa: SIM115 (open to the very end)
            setattr(sys, name, stream)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"flowrt {version('flowrt')}")
        raise typer.Exit


@app.callback()
def _options(
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and stop.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Say what all commands have in common."""


@app.command(epilog=EXIT_CODES)
def run(
    target: Target,
    checkpoints: Annotated[
        str | None,  # a Path would make the current folder of an empty text
        typer.Option(metavar="DIR", help="Where snapshots are kept; results then survive a crash."),
    ] = None,
    epoch_interval: Annotated[
        str, typer.Option(metavar="DURATION", help="From one epoch to the next, such as 500ms.")
    ] = "1s",
    delivery: Delivered = None,
    restart: Annotated[
        str,
        typer.Option(
            metavar="STRATEGY",
            help="After a failure: none, fixed:10s:3 (wait 10 s, three times at most) or backoff.",
        ),
    ] = "none",
    param: Params = [],  # noqa: B006 (typer copies it)
    restore: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Start from a savepoint, with an empty --checkpoints."),
    ] = None,
    take_over: Annotated[
        bool,
        typer.Option("--take-over", help="Take the checkpoint folder from an instance that hangs."),
    ] = False,
    allow_dropped_state: Annotated[
        list[str],
        typer.Option(metavar="NAME", help="Let go of the state of an operator that is gone."),
    ] = [],  # noqa: B006
    metrics_port: Annotated[
        int | None,
        typer.Option(
            metavar="PORT",
            min=0,
            max=65_535,
            help="Serve metrics for Prometheus on 127.0.0.1; needs the extra flowrt[prometheus].",
        ),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Show warnings and errors only.")
    ] = False,
    traceback: Traceback = False,
) -> None:
    """Run a flow until its input ends.

    Ctrl-C (or SIGTERM) drains it: the last epoch commits, and the same command goes on from there.
    A second one stops at once; what was committed stays.
    """

    def run_it() -> Exit:
        arm_from_environment(os.environ)
        options: dict[str, Any] = {
            "checkpoints": checkpoints,
            "scheduler": parse_epoch_interval(epoch_interval),
            "delivery": delivery.value if delivery else None,
            "restart": parse_restart(restart),
            "restore": restore,
            "take_over": take_over,
            "allow_dropped_state": allow_dropped_state,
        }
        flow = load_flow(target, parse_params(param))
        display = choose_display(quiet=quiet)
        status = run_flow(flow, options, display, metrics_port=metrics_port)
        return Exit.CANCELLED if status.state == "cancelled" else Exit.OK

    _leave_after(run_it, traceback)


@app.command(epilog=EXIT_CODES)
def explain(
    target: Target,
    param: Params = [],  # noqa: B006
    delivery: Delivered = None,
    mermaid: Annotated[
        bool, typer.Option("--mermaid", help="Print a Mermaid graph instead.")
    ] = False,
    traceback: Traceback = False,
) -> None:
    """Print a flow's graph, which steps share a task, and what is guaranteed end to end."""

    def explain_it() -> Exit:
        plan = load_flow(target, parse_params(param)).plan()
        promised = delivery or DeliveryName.exactly_once
        typer.echo(as_mermaid(plan) if mermaid else as_text(plan, promised.value), nl=False)
        return Exit.OK

    _look(explain_it, traceback)


@checkpoints_app.command("list", epilog=EXIT_CODES)
def _list(folder: Folder, as_json: AsJson = False, traceback: Traceback = False) -> None:
    """List the checkpoints in a folder, newest first."""
    _look(lambda: list_checkpoints(folder, as_json=as_json), traceback)


@checkpoints_app.command("show", epilog=EXIT_CODES)
def _show(
    folder: Folder,
    epoch: Annotated[int | None, typer.Option(help="Which epoch; the newest by default.")] = None,
    operator: Annotated[
        str | None, typer.Option(metavar="NAME", help="With --key: whose state to show.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="What the operator keeps for this key (JSON, or text).")
    ] = None,
    as_json: AsJson = False,
    traceback: Traceback = False,
) -> None:
    """Show what a checkpoint holds: positions, state files, sinks, or the state of one key."""

    def show() -> Exit:
        if operator is None and key is None:
            return show_checkpoint(folder, epoch, as_json=as_json)
        if operator is None or key is None:
            raise ConfigError("--operator and --key belong together: give both, or neither")
        return show_key(folder, epoch, operator, key, as_json=as_json)

    _look(show, traceback)


@checkpoints_app.command("verify", epilog=EXIT_CODES)
def _verify(folder: Folder, as_json: AsJson = False, traceback: Traceback = False) -> None:
    """Read every file of every checkpoint and compare checksums; exit code 1 if one is damaged."""
    _look(lambda: verify_checkpoints(folder, as_json=as_json), traceback)


@deadletters_app.command("list", epilog=EXIT_CODES)
def _list_letters(
    paths: Letters,
    operator: OfOperator = None,
    error: OfError = None,
    as_json: AsJson = False,
    traceback: Traceback = False,
) -> None:
    """Count dead letters by operator and error."""
    choice = Choice(operator, error)
    _look(lambda: list_letters(paths, choice, as_json=as_json), traceback)


@deadletters_app.command("show", epilog=EXIT_CODES)
def _show_letters(
    paths: Letters,
    operator: OfOperator = None,
    error: OfError = None,
    limit: Annotated[int, typer.Option(min=1, help="How many to show.")] = 10,
    as_json: AsJson = False,
    traceback: Traceback = False,
) -> None:
    """Show dead letters, oldest first, with value, error and traceback."""
    choice = Choice(operator, error)
    _look(lambda: show_letters(paths, choice, limit, as_json=as_json), traceback)


@deadletters_app.command("replay", epilog=EXIT_CODES)
def _replay_letters(
    paths: Letters,
    into: Annotated[
        Path, typer.Option(metavar="DIR", help="A folder that a FileSource of the flow watches.")
    ],
    operator: OfOperator = None,
    error: OfError = None,
    again: Annotated[
        bool, typer.Option("--again", help="Also those that were fed back before.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write nothing, say how many there are.")
    ] = False,
    traceback: Traceback = False,
) -> None:
    """Write the records of dead letters as a JSON lines file, for the flow to read again.

    Each letter is fed back once: the folder keeps a list. Exit code 1 if there is one that cannot
    be, because JSON has no form for its record.
    """
    choice = Choice(operator, error)
    _look(lambda: replay_letters(paths, choice, into, again=again, dry_run=dry_run), traceback)


def _look(command: Callable[[], Exit], traceback: bool) -> None:
    """Do what a command does that runs no flow, and leave with its exit code."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # rather than to print nothing at all

    def look() -> Exit:
        try:
            code = command()
            sys.stdout.flush()
        except BrokenPipeError:  # whoever read it has seen enough, such as `head`
            sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (to the very end)
            return Exit.FAILED
        return code

    _leave_after(look, traceback)


def _leave_after(command: Callable[[], Exit], traceback: bool) -> None:
    """Do what a command does, and leave with its exit code; whatever goes wrong is one line."""
    try:
        code = command()
    except KeyboardInterrupt:
        raise typer.Exit(report_stop()) from None
    except Exception as error:
        raise typer.Exit(report(error, with_traceback=traceback)) from None
    raise typer.Exit(code)
