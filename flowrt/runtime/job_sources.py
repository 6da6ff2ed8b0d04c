"""What a job does with the sources of its flow beside reading them."""

from __future__ import annotations

from flowrt.contract.errors import ConfigError
from flowrt.contract.logs import flow_log
from flowrt.contract.source import SourceContext
from flowrt.dataflow.sources.source_reading import asked
from flowrt.graph.nodes import Plan, SourceNode
from flowrt.runtime.options import JobOptions

log = flow_log()


class JobSources:
    """Refuses those that the job's options do not fit, and claims what each needs for itself."""

    def __init__(self, plan: Plan, options: JobOptions) -> None:
        self._flow = plan.graph.name
        self._options = options
        self._nodes = [node for node in plan.graph.nodes if isinstance(node, SourceNode)]
        self._claimed: list[SourceNode] = []

    def check(self) -> None:
        """Make sure that the job keeps checkpoints where a source needs them; else `ConfigError`.

        Says aloud where a source cannot keep what the job's delivery promises.
        """
        for node in self._nodes:
            if node.source.needs_checkpoints and self._options.checkpoints is None:
                raise ConfigError(
                    f"source {node.id!r}, {node.source.describe()}, keeps what it gives until an "
                    "epoch covers it, and without checkpoints each start would read it all again: "
                    "pass checkpoints=..., or let it keep nothing"
                )
        delivery = self._options.resolved_delivery
        if delivery == "at_most_once":
            return
        for node in self._nodes:
            if not node.source.replayable:
                log.warning(
                    "flow %s: source %r cannot be read again, so its records are at-most-once in "
                    "spite of delivery=%r: what came after the last epoch is lost in a crash",
                    self._flow,
                    node.id,
                    delivery,
                    extra={"flow": self._flow, "operator": node.id},
                )

    async def claim(self) -> None:
        """Claim what the sources need for themselves; `tell_end` gives it back."""
        world, take_over = self._options.world, self._options.take_over
        for node in self._nodes:
            ctx = SourceContext(node.id, 0, node.parallelism, world, take_over)
            await asked(node.id, "take what only one job may have", node.source.claim(ctx))
            self._claimed.append(node)

    def tell_end(self) -> None:
        """Tell those that claimed that the job is over, once each."""
        while self._claimed:
            node = self._claimed.pop(0)
            try:
                node.source.ended()
            except Exception:
                log.exception(
                    "source %r could not take the end of its job",
                    node.id,
                    extra={"operator": node.id},
                )
