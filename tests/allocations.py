"""A second counter of memory: what torch's profiler sees allocated in a real run on the CPU."""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else it logs to stderr


def allocated(model: nn.Module, *shapes: tuple[int, ...]) -> list[tuple[str, int]]:
    """Each operator that Python calls in a forward pass, and the bytes allocated at its end.

    Those of inputs of these shapes are among them; weights were there before.
    """
    model.eval()
    with _as_in_a_trace(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        inputs = [torch.full(shape, 0.5) for shape in shapes]  # the caller holds them
        model(*inputs)
    allocations: list[tuple[int, int]] = []
    ends: list[tuple[int, str]] = []

    def look(event: Any, inside: bool) -> None:
        if event.tag.name == "Allocation":
            allocations.append((event.start_time_ns, event.extra_fields.alloc_size))
        operator = event.tag.name == "TorchOp" and "::" in event.name  # else a region with a name
        if operator and not inside:
            ends.append((event.end_time_ns, event.name.removeprefix("aten::")))
        for child in event.children:
            look(child, inside or operator)

    for event in seen.profiler.kineto_results.experimental_event_tree():
        look(event, inside=False)
    curve, now = [], 0
    allocations.sort(reverse=True)
    for end, name in sorted(ends):
        while allocations and allocations[-1][0] <= end:
            now += allocations.pop()[1]
        curve.append((name, now))
    return curve[len(shapes) :]


@contextmanager
def _as_in_a_trace() -> Iterator[None]:
    """Without gradients, the garbage collector and the fast path of transformer layers."""
    gc.collect()
    gc.disable()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
        gc.enable()
