"""Which states of a flow can be read from outside, by the names of operators and states."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flowrt.contract.errors import ConfigError
from flowrt.contract.state import AggregatingState, BroadcastState, StateSpec, ValueState
from flowrt.contract.steps import Connect, Fold, Process
from flowrt.graph.check import declared_states, made
from flowrt.graph.nodes import Plan, StepNode


class ReadableStates:
    """The keyed states of a plan: those of running figures, and those that classes declare.

    What a function declares is known once it has used it, or when the declaration is given.
    """

    def __init__(self, plan: Plan) -> None:
        self._flow = plan.graph.name
        self._nodes = {
            node.id: node
            for node in plan.graph.nodes
            if isinstance(node, StepNode)
            and node.keyed
            and isinstance(node.step, Fold | Process | Connect)
        }
        self._known: dict[str, dict[str, StateSpec[Any]]] = {}

    def check(self, operator: str, state: StateSpec[Any] | str | None) -> None:
        """Make sure that there is such a state, where that is known; `ConfigError` listing all."""
        if operator not in self._nodes:
            raise ConfigError(
                f"flow {self._flow!r} has no operator {operator!r} that keeps state for keys; "
                f"those that do are: {_names(self._nodes)}"
            )
        if self._declared(operator):
            self.spec(operator, state, {})
        elif isinstance(state, StateSpec) and not state.name:
            raise ConfigError(f"a {type(state).__name__} of operator {operator!r} needs its name=")

    def spec(
        self, operator: str, state: StateSpec[Any] | str | None, used: Mapping[str, StateSpec[Any]]
    ) -> StateSpec[Any]:
        """Return a state as it is declared; `ConfigError` where it is not.

        `used` are those that the operator has used so far.
        """
        declared = self._declared(operator)
        known = declared or used
        if isinstance(state, StateSpec):
            if not declared:
                return state
            state = state.name
        if state is None and len(known) == 1:
            return next(iter(known.values()))
        if state is not None and state in known:
            return known[state]
        what = f"no state {state!r}" if state is not None else "not just one state"
        so_far = "" if declared else " so far; before the first record, pass the declaration itself"
        raise ConfigError(
            f"operator {operator!r} has {what}; its states are: {_names(known)}{so_far}"
        )

    def _declared(self, operator: str) -> dict[str, StateSpec[Any]]:
        if operator not in self._known:
            specs = _states_of(self._nodes[operator])
            self._known[operator] = {spec.name: spec for spec in specs}
        return self._known[operator]


def _states_of(node: StepNode) -> list[StateSpec[Any]]:
    if isinstance(node.step, Fold):
        return [_state_of_fold(node.step)]
    states = declared_states(made(node))
    return [state for state in states if not isinstance(state, BroadcastState)]


def _state_of_fold(step: Fold) -> StateSpec[Any]:
    if step.result is None:
        return ValueState(step.type, name=step.name, migrate=step.migrate)
    # Only read: nothing is ever added to it here.
    return AggregatingState(
        lambda: None, step.add, step.result, step.type, name=step.name, migrate=step.migrate
    )


def _names(names: Mapping[str, object]) -> str:
    return ", ".join(map(repr, names)) or "none"
