"""The command line: `flowrt run`, `flowrt explain`, `flowrt checkpoints`, `flowrt deadletters`."""

import sys
from contextlib import suppress

__all__ = ["main"]

STOPPED = "flowrt: stopped by Ctrl-C"


def main() -> None:
    """Run the command line and leave the process with its exit code."""
    try:
        # Not above: the import takes long enough for somebody to think better of it.
        from flowrt.cli import app

        app.main()
    except KeyboardInterrupt:
        with suppress(AttributeError, OSError):  # closed, or a pipe that nobody reads
            sys.stderr.write(f"{STOPPED}\n")
        sys.exit(130)
