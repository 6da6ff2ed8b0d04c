"""The command line: `flowrt run`, `flowrt explain`, `flowrt checkpoints`."""

from flowrt.cli.app import main

__all__ = ["main"]
