"""No flow reads its own results: a rule for files, whose names say what would be read."""

from __future__ import annotations

from flowrt.contract.errors import GraphError
from flowrt.graph.nodes import Graph, SinkNode, SourceNode


def check_own_output(graph: Graph) -> None:
    """No file source takes what a file sink of its flow writes for input; else `GraphError`.

    Also one that does not watch its folder: this life would not read what it writes, but the next
    one would, as new input.
    """
    from flowrt.connectors.files.sink import FileSink
    from flowrt.connectors.files.source import FileSource

    sources = [node for node in graph.nodes if isinstance(node, SourceNode)]
    for sink in graph.nodes:
        if not isinstance(sink, SinkNode) or not isinstance(sink.sink, FileSink):
            continue
        part = sink.sink.first_part
        for node in sources:
            if isinstance(node.source, FileSource) and node.source.means(part):
                raise GraphError(
                    f"source {node.id!r} reads what sink {sink.id!r} writes: {part} and all that "
                    f"follow are input for {node.source.describe()}, so the flow would read its "
                    "own results again and again. Give the sink a folder of its own, or the "
                    "source a pattern that leaves the sink's files out"
                )
