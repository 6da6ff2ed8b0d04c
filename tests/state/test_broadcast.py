"""Broadcast state is a dict of values that are its own, through any number of restores."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowrt.contract.errors import StateError
from flowrt.contract.state import BroadcastState, MapState, StateSpec
from flowrt.state.broadcast import BroadcastStates

NO_TYPE: Any = dict[int, 5]  # type: ignore[valid-type]
NAMES = st.text(max_size=3) | st.tuples(st.integers(0, 3), st.text(max_size=1))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=4,
)
STEPS = st.lists(
    st.tuples(st.just("put"), NAMES, VALUES)
    | st.tuples(st.just("remove"), NAMES)
    | st.tuples(st.just("clear"))
    | st.tuples(st.just("replace"), st.dictionaries(NAMES, VALUES, max_size=4))
    | st.tuples(st.just("restore")),
    max_size=20,
)


def states_of(data: dict[str, bytes] | None = None) -> BroadcastStates:
    states = BroadcastStates("operator")
    states.restore(data or {})
    states.writable = True
    return states


def handle_of(states: BroadcastStates, spec: StateSpec[Any] | None = None) -> Any:
    return states.handle(spec or BroadcastState(name="rules"))


@given(STEPS)
def test_it_is_a_dict_through_any_number_of_restores(steps: list[Any]) -> None:
    states = states_of()
    rules, model = handle_of(states), dict[Any, Any]()
    for step, *arguments in steps:
        if step == "restore":
            states = states_of(states.snapshot())
            rules = handle_of(states)
        elif step == "put":
            model[arguments[0]] = arguments[1]
            rules.put(*arguments)
        elif step == "replace":
            model = dict(arguments[0])
            rules.replace(*arguments)
        else:
            getattr(rules, step)(*arguments)
            model.pop(arguments[0], None) if arguments else model.clear()

        assert list(rules.items()) == list(model.items())
        assert list(rules.keys()) == list(model)
        assert list(rules.values()) == list(model.values())
        assert len(rules) == len(model)
        assert all(rules.get(name) == value and name in rules for name, value in model.items())


def test_an_unchanged_snapshot_is_not_made_again() -> None:
    states = states_of()
    rules = handle_of(states)
    rules.put("a", [1])
    first, second = states.snapshot(), states.snapshot()
    rules.put("a", [2])

    assert first["rules"] is second["rules"]
    assert states.snapshot() != first


def test_reading_may_go_on_while_it_is_written() -> None:
    rules = handle_of(states_of())
    rules.replace({"a": 1, "b": 2})

    for name, value in rules.items():
        rules.remove(name)
        assert value
    assert len(rules) == 0


@pytest.mark.parametrize("name", [[1], {}, float("nan"), object()])
def test_what_can_be_no_key_can_be_no_name(name: Any) -> None:
    rules = handle_of(states_of())

    with pytest.raises((StateError, TypeError)):
        rules.put(name, 1)
    assert len(rules) == 0


def test_a_declaration_of_another_kind_is_refused() -> None:
    with pytest.raises(StateError, match="a MapState is no broadcast state"):
        handle_of(states_of(), MapState(name="rules"))
    with pytest.raises(StateError, match=r"the declared type .* cannot be used"):
        handle_of(states_of(), BroadcastState(str, NO_TYPE, name="odd"))


class OldRule(msgspec.Struct, frozen=True):
    cents: int


class NewRule(msgspec.Struct, frozen=True):
    euros: float


def test_a_changed_type_is_refused_or_migrated() -> None:
    states = states_of()
    old: Any = BroadcastState(str, OldRule, name="rules")
    handle_of(states, old).put("limit", OldRule(150))
    kept, shapes = states.snapshot(), states.shapes()

    def again() -> BroadcastStates:
        states = states_of(kept)
        states.written_as({**shapes, "rules": "that of a keyed state"})
        return states

    assert dict(handle_of(again(), old).items()) == {"limit": OldRule(150)}
    undeclared = again()
    assert undeclared.shapes() == shapes, "what nothing has declared yet keeps its shape"
    with pytest.raises(StateError, match=r"'rules': the snapshot holds .*'cents' \(int\) is gone"):
        handle_of(again(), BroadcastState(str, NewRule, name="rules"))

    def migrate(plain: dict[str, int]) -> NewRule:
        return NewRule(plain["cents"] / 100)

    states = again()
    rules = handle_of(states, BroadcastState(str, NewRule, name="rules", migrate=migrate))
    assert dict(rules.items()) == {"limit": NewRule(1.5)}
    kept, shapes = states.snapshot(), states.shapes()
    states = again()
    rules = handle_of(states, BroadcastState(str, NewRule, name="rules"))
    assert dict(rules.items()) == {"limit": NewRule(1.5)}
