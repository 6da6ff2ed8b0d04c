"""Options of a job: what fits together, and what is refused before anything runs."""

from __future__ import annotations

from typing import Any

import pytest

from flowrt.contract.errors import ConfigError
from flowrt.contract.retry import FixedDelay
from flowrt.runtime.options import JobOptions


def test_a_checkpoint_folder_means_exactly_once_and_none_at_most_once() -> None:
    assert JobOptions(checkpoints="here").resolved_delivery == "exactly_once"
    assert JobOptions().resolved_delivery == "at_most_once"
    assert JobOptions(checkpoints="here", delivery="at_least_once").resolved_delivery == (
        "at_least_once"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"delivery": "exactly_once"}, r"needs a checkpoint folder: pass checkpoints="),
        ({"delivery": "at_least_once"}, r"needs a checkpoint folder: pass checkpoints="),
        ({"checkpoints": "here", "delivery": "at_most_once"}, "keeps no checkpoints"),
        ({"delivery": "twice"}, "'twice': choose 'exactly_once'"),
        ({"checkpoints": "here", "delivery": "twice"}, "'twice': choose 'exactly_once'"),
        ({"restart": FixedDelay()}, "restart=... needs a checkpoint folder"),
        ({"restore": "savepoint"}, r"restore=... needs a checkpoint folder"),
        ({"channel_capacity": 0}, "channel_capacity is in records and must be at least 1"),
        ({"keep_checkpoints": 0}, "keep_checkpoints must be at least 1"),
        ({"checkpoints": ""}, "checkpoints"),
        ({"on_failure": "ignore"}, "on_failure='ignore'"),
        ({"checkpoints": "here", "allow_dropped_state": "count"}, "list of names"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        JobOptions(**options)
