"""The river: the in-band path of records, in flow order.

`source_task`, `channel`, `inputs` (alignment and the watermark's minimum), `chain` and `fuse` (the
operators of one task as one function), `operator_task`, `outputs`, `sink_task`; beside them
`timers`.
"""
