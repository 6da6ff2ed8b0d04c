"""Every error that flowrt raises on purpose: one root, few children.

The class says who can mend it; the message says what happened, where, and what to do.
"""

from __future__ import annotations


class FlowrtError(Exception):
    """Root of all errors that flowrt raises on purpose."""


class GraphError(FlowrtError):
    """The flow as described cannot run (raised while it is built, never while it runs)."""


class ConfigError(FlowrtError):
    """An option of a flow, job, source or sink is wrong or does not fit the others."""


class InputError(FlowrtError):
    """A source met data that it cannot read; the message names the split and the position."""


class OperatorError(FlowrtError):
    """A user's function or operator raised; `__cause__` is the exception, `value` the record."""

    def __init__(self, message: str, *, operator: str, value: object = None) -> None:
        super().__init__(message)
        self.operator = operator
        self.value = value


class StateError(FlowrtError):
    """A state value cannot be stored, encoded or decoded; the message names operator and state."""


class CheckpointError(FlowrtError):
    """A snapshot cannot be written, found, verified or restored."""


class LeaseError(CheckpointError):
    """Another instance owns the checkpoint folder or journal or took it, or the folder is gone."""


class SinkError(FlowrtError):
    """A sink cannot write, prepare or commit; nothing that was committed is harmed."""


class IngestError(FlowrtError):
    """An `Ingest` did not take an event: it has no form in the journal, or that failed to write.

    After a failed write the event may have become durable all the same.
    """


class IngestFull(IngestError):
    """An `Ingest` has no room for an event now: the flow is behind."""


class IngestClosed(IngestError):
    """An `Ingest` takes no events: it was closed, or the flow that read it has ended."""
