"""``dscalc bench IC OC F D``: time both on this machine."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated

import typer

from dscalc import parse
from dscalc.bench import view
from dscalc.bench.measurement import Device, Dtype
from dscalc.commands.answer import Answer
from dscalc.commands.asked import Asked
from dscalc.commands.options import (
    BlockOptions,
    LayerOptions,
    OutputOptions,
    ScaleOptions,
    SizeArguments,
    as_option,
)
from dscalc.commands.proof import torch_needed
from dscalc.core.blocks import REPLACEMENTS, STANDARD, Block
from dscalc.errors import DscalcError
from dscalc.inputs.grid import Grid

EXAMPLES = """
  dscalc bench 512 512 3 14
  dscalc bench 96 96 7 56 --threads 1 --assert 'speedup_low >= 2'
  dscalc bench 64 64 3 56 --as all --plot ways.png
  dscalc bench 32,64,128 128 3 56 --as separable,grouped:8 -o times.csv
"""
FIELDS = view.fields

_measure = partial(typer.Option, rich_help_panel="Measurement")


@dataclass(eq=False, repr=False)
class SeveralBlocksOptions(BlockOptions):
    """The blocks that the layer is rewritten as."""

    as_: Annotated[
        str,
        as_option(
            help="Block that replaces the convolution; several such as separable,grouped:8; all.",
        ),
    ] = "separable"

    def blocks(self) -> list[Block]:
        """The blocks that the layer is rewritten as.

        Raises:
            DscalcError: there is no such block, or options contradict each other.
        """
        parts = self.as_.split(",")
        names = [name for part in parts for name in (REPLACEMENTS if part == "all" else [part])]
        return list(dict.fromkeys(replace(self, as_=name).block() for name in names))


def bench(
    sizes: SizeArguments,
    layer: LayerOptions,
    rewriting: SeveralBlocksOptions,
    scale: ScaleOptions,
    output: OutputOptions,
    ctx: typer.Context,
    device: Annotated[Device, _measure("--device", help="Device to run on.")] = "cpu",
    dtype: Annotated[
        Dtype, _measure("--dtype", metavar="DTYPE", help="float32, bfloat16 or float16.")
    ] = "float32",
    threads: Annotated[
        str | None,
        _measure("--threads", metavar="N", help="Threads on the CPU. Default: those of torch."),
    ] = None,
    channels_last: Annotated[
        bool, _measure("--channels-last", help="Use the channels-last layout.")
    ] = False,
    compile_: Annotated[
        bool, _measure("--compile", help="Compile the modules with torch.compile first.")
    ] = False,
    backward: Annotated[
        bool, _measure("--backward", help="Time forward and backward together.")
    ] = False,
    min_run_time: Annotated[
        str,
        _measure(
            "--min-run-time",
            metavar="SECONDS",
            help="For each candidate; up to 3 times as long if it is not yet decided.",
        ),
    ] = "1",
) -> Answer:
    """Time a convolution and its replacement on this machine: are fewer MACs faster here?

    Both run in turns until it is decided which is faster, or the time is up. A single block's
    steps are also timed alone. IC, OC, F and D take lists and ranges as in dscalc compare. An
    assertion about times exits with 2 if it is not decided which is faster.
    """
    blocks = rewriting.blocks()
    block = STANDARD if len(blocks) > 1 else blocks[0]
    options = {**layer.parsed(), **scale.parsed()}
    layers = Grid(sizes.ic, sizes.oc, sizes.f, sizes.d, **options)
    asked = Asked(ctx, FIELDS, block.along(layers.dims), output)
    if layers.count * len(blocks) == 1 and output.plot:
        raise DscalcError(
            "--plot needs more than one row; give a list or a range, or --as all, or drop it"
        )
    thread_count = parse.whole(threads, "--threads") if threads is not None else None
    seconds = float(parse.number(min_run_time, "--min-run-time", "0.5 or 10"))
    with torch_needed():
        import dscalc.bench.timing  # noqa: F401  # for its errors
    from dscalc.bench.call import benchmark

    report = benchmark(
        **sizes.parsed(), unit=output.unit,
        blocks=blocks, strict="all" not in rewriting.as_.split(","),
        device=device, dtype=dtype, threads=thread_count, channels_last=channels_last,
        compile=compile_, backward=backward, min_run_time=seconds,
        refuse=asked.verdict.refuse, **options,
    )  # fmt: skip
    return Answer(report, asked)
