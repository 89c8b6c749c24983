"""``dscalc IC OC F D``: one layer, or a grid of layers."""

import typer

from dscalc import library
from dscalc.commands.answer import Answer
from dscalc.commands.asked import Asked
from dscalc.commands.options import (
    BlockOptions,
    LayerOptions,
    OutputOptions,
    ProofOptions,
    Questions,
    ScaleOptions,
    SizeArguments,
    Work,
)
from dscalc.core import fields
from dscalc.errors import DscalcError

EXAMPLES = """
  dscalc 3 64 3 224
  dscalc 512 512 3 14 --get mac_ratio_exact
  dscalc 256 256 3x5 56 --stride 2 --padding 1 --bias -f json
  dscalc 64 32:1024:x2 3,5,7 14 -o sweep.csv
  dscalc 64 8:1024:8 3 56 --where 'separable_macs <= 50M' --sort out_channels
  dscalc 512 512 3 14 --assert 'separable_macs <= 60M'
"""
FIELDS = fields.layer_fields


def compare(
    sizes: SizeArguments,
    layer: LayerOptions,
    rewriting: BlockOptions,
    scale: ScaleOptions,
    output: OutputOptions,
    proof: ProofOptions,
    questions: Questions,
    ctx: typer.Context,
    work: Work = False,
) -> Answer:
    """Compare a standard convolution with its depthwise separable replacement.

    See dscalc blocks for other ways to build the layer, and dscalc network for several layers.

    IC, OC, F and D each take a value, a list 32,64,128, a range 32:512:32 or a geometric range
    32:1024:x2. Several values make a grid, with one row for each combination.
    """
    block = rewriting.block()
    given = {**sizes.parsed(), **layer.parsed(), **scale.parsed()}
    report = library.compare(block=block, unit=output.unit, work=work, **given)
    single = report.count == 1
    asked = Asked(
        ctx, FIELDS, report.block, output, proof, questions,
        several=not single, batch_size=given["batch_size"],
    )  # fmt: skip
    if single and output.plot:
        raise DscalcError(
            "--plot needs a grid; give a list or a range, such as 32:1024:x2 for OC, or drop it"
        )
    return Answer(report, asked, prove=asked.proves(by_default=single))
