"""The fluent builder: a flow, described by chaining calls on streams."""

from flowrt.stream.flow import Flow
from flowrt.stream.keyed import KeyedStream
from flowrt.stream.stream import Stream

__all__ = ["Flow", "KeyedStream", "Stream"]
