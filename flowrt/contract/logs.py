"""Logging: every record below the logger "flowrt" says which flow it is about.

`extra` fields named `flow` and `operator` are what formatters for JSON, and structlog's, show
beside the message. They are those of the job and of the task that logs (a task has the name of its
first operator), unless whoever logs knows better.
"""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

flow_name: ContextVar[str | None] = ContextVar("flow_name", default=None)
"""The flow whose job runs the current task, and what it starts; None outside of any."""

operator_name: ContextVar[str | None] = ContextVar("operator_name", default=None)
"""The first operator of the flow's task that runs now; None outside of any."""

if TYPE_CHECKING:
    _Adapter = logging.LoggerAdapter[logging.Logger]
else:
    _Adapter = logging.LoggerAdapter


class FlowLog(_Adapter):
    """Adds the names of flow and operator to what is logged; those in `extra` come first."""

    def process(
        self, msg: object, kwargs: MutableMapping[str, Any]
    ) -> tuple[object, MutableMapping[str, Any]]:
        """See `logging.LoggerAdapter.process`."""
        extra = {"flow": flow_name.get(), "operator": operator_name.get()}
        extra |= kwargs.get("extra") or {}
        kwargs["extra"] = {key: value for key, value in extra.items() if value is not None}
        return msg, kwargs


def flow_log(name: str = "flowrt") -> FlowLog:
    """Return what to log with, below the logger "flowrt"."""
    return FlowLog(logging.getLogger(name))
