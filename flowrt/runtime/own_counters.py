"""What a job's sources and sinks count by themselves; asked when somebody looks."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from flowrt.contract.logs import flow_log
from flowrt.graph.nodes import Plan, SinkNode, SourceNode

log = flow_log()


class OwnCounters:
    """Asks sources and sinks for their counters, and tells what came to them since it was made.

    They count over their object's life, in which there may have been other jobs.
    """

    def __init__(self, plan: Plan) -> None:
        self._ask: dict[str, Callable[[], Mapping[str, int]]] = {}
        for node in plan.graph.nodes:
            if isinstance(node, SourceNode):
                self._ask[node.id] = node.source.counters
            elif isinstance(node, SinkNode):
                self._ask[node.id] = node.sink.counters
        self._failed: set[str] = set()
        self._before = {id: self._of(id) for id in self._ask}

    def now(self) -> dict[str, dict[str, int]]:
        """Return the counters by operator and name; those without any are left out."""
        return {id: counters for id in self._ask if (counters := self._since(id))}

    def _since(self, id: str) -> dict[str, int]:
        before = self._before[id]
        return {name: count - before.get(name, 0) for name, count in self._of(id).items()}

    def _of(self, id: str) -> Mapping[str, int]:
        try:
            return self._ask[id]()
        except Exception:
            # Somebody looks at all figures of the job: one that has none must not hide the others.
            if id not in self._failed:
                self._failed.add(id)
                log.exception("the counters of %r cannot be read", id, extra={"operator": id})
            return {}
