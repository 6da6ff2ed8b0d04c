"""connect: one operator for two streams, checked at every cut and parallelism; broadcast state."""

from __future__ import annotations

from typing import Any

import pytest

from flowrt import BroadcastState, Context, CoOperator, ListState, Operator, OutputTag, ValueState
from flowrt.contract.errors import ConfigError, GraphError, OperatorError, StateError
from flowrt.operators.connect import connect, connect_flat_map, connect_map
from flowrt.testing import (
    END,
    RESTART,
    LawBroken,
    barrier,
    check_operator,
    drive,
    left,
    processing_time,
    record,
    right,
    side,
    watermark,
)

pytestmark = pytest.mark.anyio

UNPAID: OutputTag[str] = OutputTag("unpaid")
Order = tuple[str, int]
Payment = tuple[str, str]
Rule = tuple[str, int]


class Paid(CoOperator[Order, Payment, tuple[str, int, str]]):
    """Joins an order with its payment, whichever comes first; tells of what is not paid in time."""

    amount = ValueState(int)
    payments = ListState(str)

    def process_left(self, value: Order, ctx: Context) -> None:
        _, amount = value
        self.amount.set(amount)
        for method in self.payments.get():
            ctx.emit((ctx.key, amount, method))
        if not len(self.payments):
            ctx.timers.register_event_time((ctx.timestamp or 0) + 10)

    async def process_right(self, value: Payment, ctx: Context) -> None:
        _, method = value
        self.payments.add(method)
        amount = self.amount.get()
        if amount is not None:
            ctx.emit((ctx.key, amount, method))

    def on_timer(self, timestamp: int, ctx: Context) -> None:
        if not len(self.payments):
            ctx.side(UNPAID, ctx.key)


class Priced(CoOperator[Order, Rule, tuple[str, int]]):
    """Multiplies by the factor that the rules give for a name, and counts for each key."""

    factors = BroadcastState(str, int)
    seen = ValueState(int, default=0)

    def process_left(self, value: Order, ctx: Context) -> None:
        name, amount = value
        self.seen.set(self.seen.get() + 1)
        ctx.emit((f"{name}{self.seen.get()}", amount * self.factors.get(name, 1)))

    def process_right(self, value: Rule, ctx: Context) -> None:
        name, factor = value
        if factor:
            self.factors.put(name, factor)
        else:
            self.factors.remove(name)


def name_of(value: Any) -> str:
    return str(value[0])


ORDERS_AND_PAYMENTS = [
    left(("a", 3), at=1),
    right(("b", "card"), at=2),
    right(("a", "cash"), at=3),
    left(("b", 5), at=4),
    left(("c", 7), at=5),
    watermark(20),
    right(("c", "card"), at=21),
    END,
]


async def test_laws_of_an_operator_with_two_keyed_inputs() -> None:
    expect = [
        record(("a", 3, "cash"), at=3),
        record(("b", 5, "card"), at=4),
        side(UNPAID, "c", at=15),
        watermark(20),
        record(("c", 7, "card"), at=21),
        END,
    ]

    await check_operator(connect(Paid), ORDERS_AND_PAYMENTS, expect, key=name_of)


async def test_laws_of_an_operator_with_rules() -> None:
    given = [
        left(("a", 3)),
        right(("a", 10)),
        left(("a", 3)),
        left(("b", 3)),
        right(("b", 2)),
        right(("a", 0)),
        left(("b", 4)),
        left(("a", 4)),
        END,
    ]
    expect = [("a1", 3), ("a2", 30), ("b1", 3), ("b2", 8), ("a3", 4)]

    await check_operator(Priced, given, [*map(record, expect), END], key=name_of)


@pytest.mark.parametrize(
    "step",
    [
        connect_map(lambda value: f"left {value}", lambda value: f"right {value}"),
        connect(
            lambda value, ctx: ctx.emit(f"left {value}"),
            lambda value, ctx: ctx.emit(f"right {value}"),
        ),
        connect_flat_map(lambda value: [f"left {value}"], lambda value: [f"right {value}"]),
    ],
)
async def test_laws_of_functions(step: Any) -> None:
    given = [left(1, at=3), right(1), left(2), right(2, at=5), END]

    expect = [record("left 1", at=3), record("right 1"), record("left 2"), record("right 2", at=5)]

    await check_operator(step, given, [*expect, END])


async def test_laws_of_coroutine_functions() -> None:
    async def later(value: int) -> int:
        return value * 2

    async def twice(value: int) -> list[int]:
        return [value, value]

    given = [left(1), right(2), END]

    await check_operator(connect_map(later, str), given, [record(2), record("2"), END])
    await check_operator(connect_flat_map(twice, twice), given, [*map(record, [1, 1, 2, 2]), END])


async def test_what_each_instance_sends_for_a_broadcast_record_comes_from_each() -> None:
    class Tells(Priced):
        def process_right(self, value: Rule, ctx: Context) -> None:
            super().process_right(value, ctx)
            ctx.emit((f"rule {value[0]}", value[1]))

    given = [right(("a", 2)), left(("a", 1)), END]
    expect = [record(("rule a", 2)), record(("a1", 2)), END]

    assert len(await drive(Tells, given, key=name_of, parallelism=3)) == len(expect) + 2
    await check_operator(Tells, given, expect, key=name_of)


async def test_an_operator_that_keeps_rules_in_itself_breaks_the_law() -> None:
    class Forgets(CoOperator[Order, Rule, int]):
        def __init__(self) -> None:
            self.factor = 1

        def process_left(self, value: Order, ctx: Context) -> None:
            ctx.emit(value[1] * self.factor)

        def process_right(self, value: Rule, ctx: Context) -> None:
            self.factor = value[1]

    with pytest.raises(LawBroken, match="goes on from a snapshot"):
        await check_operator(Forgets, [right(("a", 5)), left(("a", 1)), END], [record(5), END])


# ---------------------------------------------------------------------------- broadcast state


class Rules(CoOperator[Any, Any, Any]):
    """Does with its rules what records say."""

    rules = BroadcastState(str, dict, name="rules")

    def process_left(self, value: Any, ctx: Context) -> None:
        ctx.emit(value(self.rules, ctx))

    def process_right(self, value: Any, ctx: Context) -> None:
        value(self.rules, ctx)


WRITES = [
    lambda rules, ctx: rules.put("a", {}),
    lambda rules, ctx: rules.remove("a"),
    lambda rules, ctx: rules.clear(),
    lambda rules, ctx: rules.replace({}),
]


@pytest.mark.parametrize("write", WRITES)
async def test_rules_are_written_in_process_right_only(write: Any) -> None:
    with pytest.raises(StateError) as caught:
        await drive(Rules, [right(write), left(write)])

    assert str(caught.value) == (
        "operator 'step-1', state 'rules': it is written outside of process_right: only there does "
        "every subtask see the same records, so write it there or in open, and send what is found "
        "elsewhere to the broadcast stream"
    )


async def test_rules_are_not_written_in_a_timer() -> None:
    class Timed(Rules):
        def process_left(self, value: Any, ctx: Context) -> None:
            ctx.timers.register_processing_time(0)

        def on_timer(self, timestamp: int, ctx: Context) -> None:
            self.rules.clear()

    script = [left(1, key="k"), right(lambda rules, ctx: rules.clear()), processing_time(2_000_000)]
    with pytest.raises(StateError, match="written outside of process_right"):
        await drive(Timed, script)


async def test_a_broadcast_record_has_no_key() -> None:
    with pytest.raises(StateError, match=r"has no current key: .* a broadcast record has none"):
        await drive(Rules, [left(lambda _, ctx: ctx.key, key="k"), right(lambda _, ctx: ctx.key)])


async def test_rules_can_be_loaded_in_open_where_there_are_none() -> None:
    class Loads(Priced):
        loaded = 0

        async def open(self, ctx: Context) -> None:
            if not len(self.factors):
                type(self).loaded += 1
                self.factors.replace({"a": 7})

    given = [left(("a", 1)), RESTART, right(("a", 2)), RESTART, left(("a", 1))]

    assert await drive(Loads, given, key=name_of) == [record(("a1", 7)), record(("a2", 2))]
    assert Loads.loaded == 1


async def test_changing_a_rule_in_place_changes_no_state() -> None:
    def change(rules: Any, ctx: Context) -> Any:
        rules.get("a")["limit"] = 5
        return dict(rules.items())

    limit = {"limit": 1}
    out = await drive(
        Rules,
        [
            right(lambda rules, ctx: rules.put("a", limit)),
            right(lambda rules, ctx: limit.update(limit=2)),
            left(change),
            RESTART,
            left(lambda rules, ctx: rules.get("a")),
        ],
    )

    assert out == [record({"a": {"limit": 1}}), record({"limit": 1})]


async def test_a_rule_that_cannot_be_encoded_fails_when_it_is_written() -> None:
    text = "operator 'step-1', state 'rules', key 'a': .* cannot be stored where dict is declared"
    with pytest.raises(StateError, match=text):
        await drive(Rules, [right(lambda rules, ctx: rules.put("a", 5))])


async def test_replacing_all_rules_with_one_that_cannot_be_stored_changes_none() -> None:
    def replace(rules: Any, ctx: Context) -> None:
        with pytest.raises(StateError):
            rules.replace({"b": {}, "c": 5})

    out = await drive(
        Rules,
        [
            right(lambda rules, ctx: rules.replace({"a": {}})),
            right(replace),
            left(lambda rules, ctx: [list(rules.keys()), list(rules.values()), "a" in rules]),
            right(lambda rules, ctx: rules.clear()),
            left(lambda rules, ctx: len(rules)),
            RESTART,
            left(lambda rules, ctx: rules.get("a", "none")),
        ],
    )

    assert out == [record([["a"], [{}], True]), record(0), record("none")]


async def test_functions_share_their_rules_by_name() -> None:
    def rule(value: Rule, ctx: Context) -> None:
        ctx.state(BroadcastState(str, int, name="rules")).put(*value)

    def order(value: Order, ctx: Context) -> None:
        ctx.emit(value[1] * ctx.state(BroadcastState(str, int, name="rules")).get(value[0], 1))

    step = connect(order, rule, broadcast=True)
    given = [right(("a", 2)), left(("a", 3)), RESTART, RESTART, left(("a", 4)), END]

    await check_operator(step, given, [record(6), record(8), END])


async def test_rules_declared_in_two_ways_are_refused() -> None:
    def rule(value: Any, ctx: Context) -> None:
        ctx.state(BroadcastState(str, int, name="rules"))
        ctx.state(BroadcastState(str, str, name="rules"))

    with pytest.raises(StateError, match="state 'rules': it is declared twice, in different ways"):
        await drive(connect(rule, rule, broadcast=True), [right(1)])


async def test_broadcast_state_needs_a_broadcast_input() -> None:
    def rule(value: Any, ctx: Context) -> None:
        ctx.state(BroadcastState(str, int, name="rules"))

    with pytest.raises(StateError, match="uses broadcast state 'rules', and nothing is broadcast"):
        await drive(connect(rule, rule), [right(1)])


async def test_stored_rules_that_do_not_fit_the_declared_type_are_refused() -> None:
    given = [right(lambda rules, ctx: rules.put("a", {})), barrier(1)]
    snapshot = (await drive(Rules, given)).snapshots[1]

    class Other(CoOperator[Any, Any, Any]):
        rules = BroadcastState(str, int)

    with pytest.raises(StateError, match="'rules': what was stored cannot be read"):
        await drive(Other, [], restore=snapshot)


async def test_what_the_operator_itself_keeps_comes_back_beside_its_rules() -> None:
    class Counts(CoOperator[str, int, int]):
        factor = BroadcastState(str, int)
        count = 0

        def process_left(self, value: str, ctx: Context) -> None:
            self.count += 1
            ctx.emit(self.count * self.factor.get("", 0))

        def process_right(self, value: int, ctx: Context) -> None:
            self.factor.put("", value)

        def snapshot(self) -> int:
            return self.count

        def restore(self, data: list[int]) -> None:
            self.count = sum(data)

    given = [right(10), left("a"), left("b"), END]

    await check_operator(Counts, given, [record(10), record(20), END])


# ------------------------------------------------------------------------------ what is refused


def one_input(value: Any, ctx: Context) -> None:
    ctx.emit(value)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: connect(one_input), "one function of (value, ctx) for each stream, and got"),
        (lambda: connect(one_input, 5), "needs a function as right, and 5 cannot be called"),
        (lambda: connect(len, one_input), "calls left with 2 arguments, and len cannot be"),
        (lambda: connect_map(str, 5), "map of connected streams needs a function as right"),
        (lambda: connect_flat_map(5, str), "flat_map of connected streams needs a function as"),
    ],
)
async def test_what_takes_no_two_inputs_is_refused(make: Any, text: str) -> None:
    with pytest.raises(GraphError) as caught:
        make()

    assert text in str(caught.value)


async def test_an_error_names_the_operator_and_the_record_of_its_side() -> None:
    def fails(value: int, ctx: Context) -> None:
        raise ValueError("no")

    text = r"operator 'step-1' raised ValueError: no at the record 2"
    with pytest.raises(OperatorError, match=text) as caught:
        await drive([connect(one_input, fails), one_input], [left(1), right(2)])

    assert caught.value.value == 2


async def test_an_error_behind_names_the_operator_behind() -> None:
    def fails(value: int, ctx: Context) -> None:
        raise ValueError("no")

    with pytest.raises(OperatorError, match=r"operator 'step-2' raised ValueError"):
        await drive([connect(one_input, one_input), fails], [right(2)])


async def test_a_script_has_no_second_input_for_an_operator_of_one() -> None:
    with pytest.raises(ConfigError, match="for an operator of two inputs, and this one has one"):
        await drive(one_input, [right(1)])
    with pytest.raises(ConfigError, match="begins a task of its own"):
        await drive([one_input, connect(one_input, one_input)], [left(1)])


async def test_a_missing_method_says_so() -> None:
    class Half(CoOperator[int, int, int]):
        pass

    for one, name in ((left(1), "process_left"), (right(1), "process_right")):
        with pytest.raises(OperatorError, match=f"Half has no {name} method"):
            await drive(Half, [one])
    assert issubclass(Half, Operator)
