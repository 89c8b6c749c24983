"""``dscalc blocks IC OC F D``: every way to build a layer, cheapest first."""

from typing import Annotated

import typer

from dscalc import library
from dscalc.commands.answer import Answer
from dscalc.commands.asked import Asked
from dscalc.commands.options import (
    LayerOptions,
    OutputOptions,
    ProofOptions,
    ScaleOptions,
    SizeArguments,
    Work,
    blocks_option,
)
from dscalc.core import fields
from dscalc.core.blocks import DEFAULTS, STANDARD, Block

EXAMPLES = """
  dscalc blocks 256 256 3 56
  dscalc blocks 64 128 3 56 --stride 2 --only separable,bottleneck:4
  dscalc blocks 64 64 3 28 --only inverted --work
  dscalc blocks 64 64:512:x2 3 28 -o blocks.csv
"""
FIELDS = fields.block_fields


def blocks(
    sizes: SizeArguments,
    layer: LayerOptions,
    scale: ScaleOptions,
    output: OutputOptions,
    proof: ProofOptions,
    ctx: typer.Context,
    only: Annotated[
        str | None,
        blocks_option(
            "--only",
            metavar="BLOCK,...",
            help="Only these blocks, such as separable,grouped:8,bottleneck.",
        ),
    ] = None,
    work: Work = False,
) -> Answer:
    """Compare all ways to build a layer, cheapest first.

    Each block has the input and output shape of the standard convolution. IC, OC, F and D take
    lists and ranges as in dscalc compare; each layer then has one row for each block.
    """
    chosen: list[Block] | list[str] = DEFAULTS
    if only is not None:
        chosen = [Block.parse(name, "--only") for name in only.split(",")]
    report = library.blocks(
        only=chosen, unit=output.unit, work=work,
        **sizes.parsed(), **layer.parsed(), **scale.parsed(),
    )  # fmt: skip
    asked = Asked(ctx, FIELDS, STANDARD, output, proof)
    return Answer(report, asked, prove=asked.proves(by_default=isinstance(report.rows, list)))
