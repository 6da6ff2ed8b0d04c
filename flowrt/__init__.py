"""flowrt: stream processing inside an async Python service."""

import importlib as _importlib
import typing as _typing

if _typing.TYPE_CHECKING:
    from flowrt.connectors.console import ConsoleSink as ConsoleSink
    from flowrt.connectors.files.csv_format import CsvFormat as CsvFormat
    from flowrt.connectors.files.sink import FileSink as FileSink
    from flowrt.connectors.files.source import FileSource as FileSource
    from flowrt.connectors.foreach import ForeachSink as ForeachSink
    from flowrt.connectors.ingest.source import Ingest as Ingest
    from flowrt.connectors.iterables import IterableSource as IterableSource
    from flowrt.connectors.iterables import PositionedSource as PositionedSource
    from flowrt.connectors.live import LiveEvent as LiveEvent
    from flowrt.connectors.live import LiveSink as LiveSink
    from flowrt.connectors.memory import MemorySink as MemorySink
    from flowrt.connectors.rate import RateRow as RateRow
    from flowrt.connectors.rate import RateSource as RateSource
    from flowrt.connectors.socket import SocketSource as SocketSource
    from flowrt.connectors.sqlite.lookup import SqliteLookup as SqliteLookup
    from flowrt.connectors.sqlite.sink import SqliteSink as SqliteSink
    from flowrt.connectors.sqlite.source import SqliteSource as SqliteSource
    from flowrt.contract.errors import CheckpointError as CheckpointError
    from flowrt.contract.errors import ConfigError as ConfigError
    from flowrt.contract.errors import FlowrtError as FlowrtError
    from flowrt.contract.errors import GraphError as GraphError
    from flowrt.contract.errors import IngestClosed as IngestClosed
    from flowrt.contract.errors import IngestError as IngestError
    from flowrt.contract.errors import IngestFull as IngestFull
    from flowrt.contract.errors import InputError as InputError
    from flowrt.contract.errors import LeaseError as LeaseError
    from flowrt.contract.errors import OperatorError as OperatorError
    from flowrt.contract.errors import SinkError as SinkError
    from flowrt.contract.errors import StateError as StateError
    from flowrt.contract.on_error import DeadLetter as DeadLetter
    from flowrt.contract.on_error import OnError as OnError
    from flowrt.contract.operator import Context as Context
    from flowrt.contract.operator import CoOperator as CoOperator
    from flowrt.contract.operator import Operator as Operator
    from flowrt.contract.operator import OutputTag as OutputTag
    from flowrt.contract.retry import ExponentialBackoff as ExponentialBackoff
    from flowrt.contract.retry import FixedDelay as FixedDelay
    from flowrt.contract.retry import NoRestart as NoRestart
    from flowrt.contract.sink import Sink as Sink
    from flowrt.contract.sink import SinkContext as SinkContext
    from flowrt.contract.sink import Writer as Writer
    from flowrt.contract.source import Chunk as Chunk
    from flowrt.contract.source import Reader as Reader
    from flowrt.contract.source import Source as Source
    from flowrt.contract.source import SourceContext as SourceContext
    from flowrt.contract.source import Split as Split
    from flowrt.contract.state import AggregatingState as AggregatingState
    from flowrt.contract.state import BroadcastState as BroadcastState
    from flowrt.contract.state import ListState as ListState
    from flowrt.contract.state import MapState as MapState
    from flowrt.contract.state import ReducingState as ReducingState
    from flowrt.contract.state import Ttl as Ttl
    from flowrt.contract.state import ValueState as ValueState
    from flowrt.contract.time import WatermarkStrategy as WatermarkStrategy
    from flowrt.operators.calls import Cache as Cache
    from flowrt.runtime.job import Job as Job
    from flowrt.runtime.job import start as start
    from flowrt.runtime.live_state import LiveState as LiveState
    from flowrt.runtime.output import JobOutput as JobOutput
    from flowrt.runtime.output import OutputIterator as OutputIterator
    from flowrt.runtime.run import run as run
    from flowrt.runtime.status import Bottleneck as Bottleneck
    from flowrt.runtime.status import EpochMetrics as EpochMetrics
    from flowrt.runtime.status import JobMetrics as JobMetrics
    from flowrt.runtime.status import JobStatus as JobStatus
    from flowrt.runtime.status import OperatorMetrics as OperatorMetrics
    from flowrt.runtime.status import TaskMetrics as TaskMetrics
    from flowrt.runtime.watchdog import Watchdog as Watchdog
    from flowrt.schedulers.continuous import Continuous as Continuous
    from flowrt.stream.connected import BroadcastStream as BroadcastStream
    from flowrt.stream.connected import ConnectedStreams as ConnectedStreams
    from flowrt.stream.flow import Flow as Flow
    from flowrt.stream.keyed import KeyedStream as KeyedStream
    from flowrt.stream.stream import Stream as Stream

# Where each public name lives. A module is loaded when the first of its names is used, so that
# `import flowrt` costs little and whoever needs one part loads that part alone.
_HOMES = {
    "AggregatingState": "flowrt.contract.state",
    "Bottleneck": "flowrt.runtime.status",
    "BroadcastState": "flowrt.contract.state",
    "BroadcastStream": "flowrt.stream.connected",
    "Cache": "flowrt.operators.calls",
    "CheckpointError": "flowrt.contract.errors",
    "Chunk": "flowrt.contract.source",
    "CoOperator": "flowrt.contract.operator",
    "ConfigError": "flowrt.contract.errors",
    "ConnectedStreams": "flowrt.stream.connected",
    "ConsoleSink": "flowrt.connectors.console",
    "Context": "flowrt.contract.operator",
    "Continuous": "flowrt.schedulers.continuous",
    "CsvFormat": "flowrt.connectors.files.csv_format",
    "DeadLetter": "flowrt.contract.on_error",
    "EpochMetrics": "flowrt.runtime.status",
    "ExponentialBackoff": "flowrt.contract.retry",
    "FileSink": "flowrt.connectors.files.sink",
    "FileSource": "flowrt.connectors.files.source",
    "FixedDelay": "flowrt.contract.retry",
    "Flow": "flowrt.stream.flow",
    "FlowrtError": "flowrt.contract.errors",
    "ForeachSink": "flowrt.connectors.foreach",
    "GraphError": "flowrt.contract.errors",
    "Ingest": "flowrt.connectors.ingest.source",
    "IngestClosed": "flowrt.contract.errors",
    "IngestError": "flowrt.contract.errors",
    "IngestFull": "flowrt.contract.errors",
    "InputError": "flowrt.contract.errors",
    "IterableSource": "flowrt.connectors.iterables",
    "Job": "flowrt.runtime.job",
    "JobMetrics": "flowrt.runtime.status",
    "JobOutput": "flowrt.runtime.output",
    "JobStatus": "flowrt.runtime.status",
    "KeyedStream": "flowrt.stream.keyed",
    "LeaseError": "flowrt.contract.errors",
    "ListState": "flowrt.contract.state",
    "LiveEvent": "flowrt.connectors.live",
    "LiveSink": "flowrt.connectors.live",
    "LiveState": "flowrt.runtime.live_state",
    "MapState": "flowrt.contract.state",
    "MemorySink": "flowrt.connectors.memory",
    "NoRestart": "flowrt.contract.retry",
    "OnError": "flowrt.contract.on_error",
    "Operator": "flowrt.contract.operator",
    "OperatorError": "flowrt.contract.errors",
    "OperatorMetrics": "flowrt.runtime.status",
    "OutputIterator": "flowrt.runtime.output",
    "OutputTag": "flowrt.contract.operator",
    "PositionedSource": "flowrt.connectors.iterables",
    "RateRow": "flowrt.connectors.rate",
    "RateSource": "flowrt.connectors.rate",
    "Reader": "flowrt.contract.source",
    "ReducingState": "flowrt.contract.state",
    "Sink": "flowrt.contract.sink",
    "SinkContext": "flowrt.contract.sink",
    "SinkError": "flowrt.contract.errors",
    "SocketSource": "flowrt.connectors.socket",
    "Source": "flowrt.contract.source",
    "SourceContext": "flowrt.contract.source",
    "Split": "flowrt.contract.source",
    "SqliteLookup": "flowrt.connectors.sqlite.lookup",
    "SqliteSink": "flowrt.connectors.sqlite.sink",
    "SqliteSource": "flowrt.connectors.sqlite.source",
    "StateError": "flowrt.contract.errors",
    "Stream": "flowrt.stream.stream",
    "TaskMetrics": "flowrt.runtime.status",
    "Ttl": "flowrt.contract.state",
    "ValueState": "flowrt.contract.state",
    "Watchdog": "flowrt.runtime.watchdog",
    "WatermarkStrategy": "flowrt.contract.time",
    "Writer": "flowrt.contract.sink",
    "run": "flowrt.runtime.run",
    "start": "flowrt.runtime.job",
}

__all__ = list(_HOMES)

if (
    not _typing.TYPE_CHECKING
):  # a type checker that saw __getattr__ would believe that any name is here

    def __getattr__(name):
        if name not in _HOMES:
            raise AttributeError(f"module 'flowrt' has no attribute {name!r}")
        value = getattr(_importlib.import_module(_HOMES[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
