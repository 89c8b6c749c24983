"""``dscalc blocks IC OC F D``: every way to build a layer, cheapest first."""

from collections import Counter
from collections.abc import Iterator
from typing import Annotated

from dscalc.commands.answer import Asked, counter, watched, write_alternatives
from dscalc.commands.options import (
    CheckOptions,
    LayerOptions,
    OutputOptions,
    ScaleOptions,
    SizeArguments,
    Work,
    blocks_option,
)
from dscalc.core.blocks import DEFAULTS, STANDARD, Block
from dscalc.core.conv import Conv
from dscalc.core.describe import described, titled
from dscalc.core.row import Row, cheapest_first
from dscalc.core.work import worked
from dscalc.errors import DscalcError
from dscalc.inputs.grid import Grid

EXAMPLES = """
  dscalc blocks 256 256 3 56
  dscalc blocks 64 128 3 56 --stride 2 --only separable,bottleneck:4
  dscalc blocks 64 64 3 28 --only inverted --work
  dscalc blocks 64 64:512:x2 3 28 -o blocks.csv
"""


def blocks(
    sizes: SizeArguments,
    layer: LayerOptions,
    scale: ScaleOptions,
    output: OutputOptions,
    check: CheckOptions,
    only: Annotated[
        str | None,
        blocks_option(
            "--only",
            metavar="BLOCK,...",
            help="Only these blocks, such as separable,grouped:8,bottleneck.",
        ),
    ] = None,
    work: Work = False,
) -> int:
    """Compare all ways to build a layer, cheapest first.

    Each block has the input and output shape of the standard convolution. IC, OC, F and D take
    lists and ranges as in dscalc compare; each layer then has one row for each block.
    """
    names = only.split(",") if only is not None else list(DEFAULTS)
    parsed = [Block.parse(name, "--only") for name in names]
    chosen = list(dict.fromkeys([*parsed, STANDARD]))
    asked = Asked("blocks", STANDARD, output)
    layers = Grid(**vars(sizes), **layer.parsed(), **scale.parsed())
    asked.refuse_many(layers.count * len(chosen))
    like = next(iter(layers))
    single = layers.count == 1
    if work and not single:
        raise DscalcError("--work shows one layer; give one value for each of IC, OC, F and D")
    count = counter(asked) if asked.proves(check, by_default=single) else None
    title = titled(like, layers.count, STANDARD, one_position=layers.one_position)
    report = asked.report(title)
    left_out: Counter[str] = Counter()

    def name(row: Row) -> str:
        assert isinstance(row.layer, Conv)
        return str(row.name) if single else f"{row.name} of {described(row.layer, STANDARD)}"

    def rows() -> Iterator[Row]:
        for conv in watched(layers, layers.count, output) if count else layers:
            found = cheapest_first(conv, chosen, left_out)
            if single and only is not None and left_out:  # what is asked for by name must exist
                raise DscalcError(next(iter(left_out)))
            yield from found

    def shown() -> Iterator[Row]:
        for row in asked.shown(rows(), report, count, name):
            if work:
                assert isinstance(row.layer, Conv)
                report.notes.extend(worked(row.layer, row.block or STANDARD))
            yield row

    write_alternatives(report, shown(), asked, name, left_out)
    return asked.verdict.conclude()
