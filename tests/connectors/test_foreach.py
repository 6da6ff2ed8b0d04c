from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest
from anyio.lowlevel import checkpoint

from flowrt.connectors.foreach import ForeachSink
from flowrt.contract.errors import ConfigError, SinkError
from flowrt.testing import check_sink
from tests.connectors.kit import sink_context

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("batch", [True, False])
@pytest.mark.parametrize("kind", ["plain", "coroutine"])
async def test_the_function_gets_each_value_in_order(batch: bool, kind: str) -> None:
    calls: list[Any] = []

    async def coroutine(value: Any) -> None:
        await checkpoint()
        calls.append(value)

    fn: Callable[[Any], object] = calls.append if kind == "plain" else coroutine
    sink: ForeachSink[int] = ForeachSink(fn, batch=True) if batch else ForeachSink(fn)
    writer = await sink.writer(sink_context(), [])
    await writer.write([1, 2], None)
    await writer.write((3,), None)

    assert calls == ([[1, 2], [3]] if batch else [1, 2, 3])
    assert await writer.prepare(1) is None
    await writer.close()


@pytest.mark.parametrize("batch", [True, False])
async def test_what_the_function_raises_names_the_value(batch: bool) -> None:
    async def send(value: object) -> None:
        raise ConnectionError("refused")

    writer = await (ForeachSink(send, batch=True) if batch else ForeachSink(send)).writer(
        sink_context(), []
    )

    with pytest.raises(SinkError) as caught:
        await writer.write(["x" * 500], None)
    assert "sink 'out': send raised ConnectionError('refused') for " in str(caught.value)
    assert len(str(caught.value)) < 300
    assert isinstance(caught.value.__cause__, ConnectionError)


def test_what_is_no_function_is_refused() -> None:
    with pytest.raises(ConfigError, match="takes a function, not int"):
        ForeachSink(5)  # type: ignore[call-overload]


def test_what_a_sink_says_of_itself() -> None:
    def send(value: object) -> None: ...

    assert ForeachSink(send, batch=True).describe() == "foreach send (batches)"
    assert ForeachSink(send).kind == "direct"


@pytest.mark.parametrize("batch", [True, False])
@pytest.mark.parametrize("kind", ["plain", "coroutine"])
async def test_laws(batch: bool, kind: str) -> None:
    calls: dict[str, list[int]] = defaultdict(list)

    def make(place: str) -> ForeachSink[Any]:
        def plain(given: Any) -> None:
            calls[place] += given if batch else [given]

        async def coroutine(given: Any) -> None:
            await checkpoint()
            plain(given)

        fn: Callable[[Any], object] = plain if kind == "plain" else coroutine
        return ForeachSink(fn, batch=True) if batch else ForeachSink(fn)

    await check_sink(make, range(7), lambda place: calls[place])
