"""``dscalc blocks IC OC F D``: every way to build a layer, cheapest first."""

from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Annotated

import typer

from dscalc.commands.answer import (
    Asked,
    counter,
    refuse_many,
    watched,
    write_existing,
)
from dscalc.commands.options import (
    CheckOptions,
    LayerOptions,
    OutputOptions,
    ScaleOptions,
    SizeArguments,
    Work,
)
from dscalc.core.blocks import DEFAULTS, STANDARD, Block
from dscalc.core.describe import described, in_common
from dscalc.core.row import Row, existing, layer_row, proved
from dscalc.core.work import worked
from dscalc.errors import DscalcError
from dscalc.inputs.grid import Grid
from dscalc.record.report import Report

EXAMPLES = """
  dscalc blocks 256 256 3 56
  dscalc blocks 64 128 3 56 --stride 2 --only separable,bottleneck:4
  dscalc blocks 64 64 3 28 --only inverted --work
  dscalc blocks 64 64:512:x2 3 28 -f csv -o blocks.csv
"""


def blocks(
    sizes: SizeArguments,
    layer: LayerOptions,
    scale: ScaleOptions,
    output: OutputOptions,
    check: CheckOptions,
    only: Annotated[
        str | None,
        typer.Option(
            "--only",
            metavar="BLOCK,...",
            help="Only these blocks, such as separable,grouped:8,bottleneck.",
            rich_help_panel="Layer",
        ),
    ] = None,
    work: Work = False,
) -> int:
    """Set all ways to build a layer side by side, cheapest first.

    Each block maps the same input to the same output shape as the standard convolution. IC, OC,
    F and D take lists and ranges as in dscalc compare: each layer then has a row for each block.
    """
    names = only.split(",") if only is not None else list(DEFAULTS)
    chosen = list(dict.fromkeys(Block.parse(name, "--only") for name in names))
    if STANDARD not in chosen:
        chosen.append(STANDARD)
    asked = Asked("blocks", STANDARD, output)
    verdict = asked.verdict
    layers = Grid(sizes.ic, sizes.oc, sizes.f, sizes.d, **layer.parsed(), **scale.parsed())
    refuse_many(layers.count * len(chosen), output)
    like = next(iter(layers))
    single = layers.count == 1
    if work and not single:
        raise DscalcError("--work shows one layer; give one value for each of IC, OC, F and D")
    count = None
    if check.wanted(single and not output.get, asked.fields):
        count = counter(verdict, output.verbose)
    words = described(like, STANDARD, one_position=layers.one_position)
    if not single:
        common = in_common(like, STANDARD, one_position=layers.one_position)
        words = f"{layers.count:,} {', '.join(['layers', *common])}"
    report = Report("blocks", STANDARD, [], title=words, unit=output.unit)
    left_out: Counter[str] = Counter()

    def rows() -> Iterator[Row]:
        for conv in watched(layers, layers.count, output) if count else layers:
            if single and only is not None:  # what is asked for by name must exist
                found = [layer_row(conv, block) for block in chosen]
            else:
                found = list(existing([conv], chosen, left_out))
            for row in sorted(found, key=lambda row: row.rewritten.cost.macs):
                named = row._replace(name=str(row.block))
                if work:
                    report.notes.extend(worked(conv, row.block or STANDARD))
                if count:
                    named = proved(named, count)
                where = named.name or ""
                if not single:
                    where = f"{where} of {described(conv, STANDARD)}"
                verdict.crosscheck(named, report, partial(str, where))
                if output.assertions:
                    verdict.check(named, partial(str, where))
                yield named

    write_existing(report, rows(), left_out, asked, output)
    return verdict.conclude()
