"""Failpoints by text: the rules of the crash programme."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowrt.contract.errors import ConfigError
from flowrt.contract.failpoints import arm_failpoints, failpoint
from flowrt.runtime.failpoints import FailpointRaised, Rule, arm_from_environment, parse_rules


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    yield
    arm_failpoints(None)


def test_rules_name_a_failpoint_a_hit_and_an_action() -> None:
    assert parse_rules("manifest.renamed:3=kill, commit.sent=raise,") == [
        Rule("manifest.renamed", 3, "kill"),
        Rule("commit.sent", 1, "raise"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("manifest.renamed", "is no failpoint rule"),
        ("manifest.renamed:0=kill", "is no failpoint rule"),
        ("manifest.painted=kill", "no failpoint is named 'manifest.painted'"),
        ("manifest.renamed=sing", "'sing' is no action"),
    ],
)
def test_a_rule_that_cannot_be_read_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_rules(text)


def test_nothing_is_armed_without_the_variables() -> None:
    assert arm_from_environment({}) is None
    failpoint("commit.sent")


def test_the_action_comes_at_its_hit_and_no_other() -> None:
    armed = arm_from_environment({"FLOWRT_FAILPOINTS": "commit.sent:2=raise"})

    failpoint("commit.sent")
    with pytest.raises(FailpointRaised, match=r"commit\.sent was told to raise at hit 2"):
        failpoint("commit.sent")
    failpoint("commit.sent")

    assert armed is not None
    assert armed.hits["commit.sent"] == 3


def test_the_log_has_each_failpoint_once(tmp_path: Path) -> None:
    log = tmp_path / "hits"
    log.write_text("lease.taken\n")
    arm_from_environment({"FLOWRT_FAILPOINTS_LOG": str(log)})

    for name in ("commit.sent", "epoch.chosen", "commit.sent"):
        failpoint(name)

    assert log.read_text().split() == ["lease.taken", "commit.sent", "epoch.chosen"]


def test_a_kill_leaves_the_log_behind(tmp_path: Path) -> None:
    code = (
        "import os\n"
        "from flowrt.contract.failpoints import failpoint\n"
        "from flowrt.runtime.failpoints import arm_from_environment\n"
        "arm_from_environment(os.environ)\n"
        "failpoint('epoch.chosen'); failpoint('commit.sent'); print('alive')"
    )
    log = tmp_path / "hits"
    environment = {"FLOWRT_FAILPOINTS": "commit.sent=kill", "FLOWRT_FAILPOINTS_LOG": str(log)}

    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )

    assert done.returncode < 0
    assert done.stdout == ""
    assert log.read_text().split() == ["epoch.chosen", "commit.sent"]
