"""The river: the in-band path of records, in flow order.

`sources` reads splits and sends; `channels` lie between tasks (`inputs` aligns barriers and has the
watermark's minimum, `outputs` deals out); `chains` are the operators of one task, fused into one
function, with their timers; `tasks` take what comes, make calls, write to sinks.
"""
