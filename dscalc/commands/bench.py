"""``dscalc bench IC OC F D``: time both on this machine."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Annotated, Literal

import typer

from dscalc import words
from dscalc.commands.answer import (
    Asked,
    is_streamed,
    torch_needed,
    watched,
    write,
)
from dscalc.commands.options import (
    BlockOptions,
    LayerOptions,
    OutputOptions,
    ScaleOptions,
    SizeArguments,
)
from dscalc.core.describe import described
from dscalc.core.row import Row, layer_row
from dscalc.errors import DscalcError
from dscalc.inputs.grid import Grid
from dscalc.record.report import Report

EXAMPLES = """
  dscalc bench 512 512 3 14
  dscalc bench 96 96 7 56 --threads 1 --assert 'speedup >= 2'
  dscalc bench 32,64,128 128 3 56 -f csv -o times.csv
  dscalc bench 64 64 3 14:112:14 --plot times.png
"""


def bench(
    sizes: SizeArguments,
    layer: LayerOptions,
    rewriting: BlockOptions,
    scale: ScaleOptions,
    output: OutputOptions,
    device: Annotated[
        Literal["cpu", "cuda", "mps"],
        typer.Option("--device", help="Where to run.", rich_help_panel="Measurement"),
    ] = "cpu",
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"],
        typer.Option("--dtype", help="Of weights and feature maps.", rich_help_panel="Measurement"),
    ] = "float32",
    threads: Annotated[
        str | None,
        typer.Option(
            "--threads",
            metavar="N",
            help="Threads on the CPU; as many as torch uses unless given.",
            rich_help_panel="Measurement",
        ),
    ] = None,
    channels_last: Annotated[
        bool,
        typer.Option(
            "--channels-last", help="Store channels innermost.", rich_help_panel="Measurement"
        ),
    ] = False,
    compile_: Annotated[
        bool,
        typer.Option(
            "--compile", help="Run what torch.compile makes.", rich_help_panel="Measurement"
        ),
    ] = False,
    min_run_time: Annotated[
        str,
        typer.Option(
            "--min-run-time",
            metavar="SECONDS",
            help="Time each candidate for so long.",
            rich_help_panel="Measurement",
        ),
    ] = "1",
) -> int:
    """Measure both on this machine: are fewer MACs faster here?

    Times the standard and the separable module, and the depthwise and pointwise parts alone, in
    turns. Beside the times stand the bytes that must move at the least, and the FLOPs for each of
    them. IC, OC, F and D take lists and ranges as in dscalc compare.

    --get and --assert know the fields of the measurement, such as speedup and standard_time_us.
    """
    block = rewriting.block()
    asked = Asked("bench", block, output)
    verdict = asked.verdict
    layers = Grid(sizes.ic, sizes.oc, sizes.f, sizes.d, **layer.parsed(), **scale.parsed())
    asked.refuse_many(layers.count, output)
    if layers.count == 1 and output.plot:
        raise DscalcError("--plot needs more than one layer; give a list or a range, or drop it")
    thread_count = words.whole(threads, "--threads") if threads is not None else None
    seconds = float(words.number(min_run_time, "--min-run-time"))
    with torch_needed():
        from dscalc.pytorch.timing import Settings, measured
    settings = Settings(device, dtype, thread_count, channels_last, compile_, seconds)
    report = Report("bench", block, [], unit=output.unit)
    interrupted = False

    def rows() -> Iterator[Row]:
        nonlocal interrupted
        try:
            for conv in watched(layers, layers.count, output, "measuring"):
                name = described(conv, block, one_position=layers.one_position)
                try:
                    row = measured(layer_row(conv, block, name), settings)
                except DscalcError as error:
                    verdict.refuse(str(error))
                    continue
                verdict.check(row, partial(str, name))
                yield row
        except KeyboardInterrupt:  # what was measured so far is worth showing
            interrupted = True

    if not is_streamed(output):
        held = list(rows())
        if not held:
            return 130 if interrupted else verdict.exit_code
        write(replace(report, rows=held, checks=verdict.checks), output, asked.get)
    else:
        write(replace(report, rows=rows()), output, asked.get)
    return 130 if interrupted else verdict.conclude()
