"""``dscalc IC OC F D``: one layer, or a grid of them."""

import sys
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from dscalc.checks.verdict import Verdict
from dscalc.commands.answer import (
    Answer,
    Count,
    counter,
    plotting,
    refuse_many,
    uncounted,
    verdict_on,
    watched,
    write,
)
from dscalc.commands.options import (
    CheckOptions,
    LayerOptions,
    OutputOptions,
    ScaleOptions,
    SizeArguments,
)
from dscalc.core.blocks import Comparison, Counts
from dscalc.core.describe import described, unusual_options
from dscalc.errors import DscalcError
from dscalc.inputs.grid import Grid
from dscalc.record.fields import Record, record, values

if TYPE_CHECKING:  # a sheet is made only where one is shown
    from dscalc.report.sheet import Sheet

EXAMPLES = """
  dscalc 3 64 3 224
  dscalc 512 512 3 14 --get mac_ratio_exact
  dscalc 256 256 3x5 56 --stride 2 --padding 1 --bias -f json
  dscalc 64 32:1024:x2 3,5,7 14 -f csv -o sweep.csv
  dscalc 512 512 3 14 --assert 'separable_macs <= 60M'
"""


def compare(
    sizes: SizeArguments,
    layer: LayerOptions,
    scale: ScaleOptions,
    output: OutputOptions,
    check: CheckOptions,
) -> int:
    """Compare a standard convolution with its depthwise separable replacement.

    IC, OC, F and D each take a value, a list 32,64,128, a range 32:512:32 or a geometric range
    32:1024:x2. More than one value makes a grid: a row for each combination.
    """
    verdict = verdict_on(output)
    layers = Grid(sizes.ic, sizes.oc, sizes.f, sizes.d, **layer.parsed(), **scale.parsed())
    single = layers.count == 1
    if single and output.plot:
        raise DscalcError(
            "--plot needs a grid; give a list or a range, such as 32:1024:x2 for OC, or drop it"
        )
    verify = check.wanted(single and not output.get, [*verdict.assertion_fields, *output.get])
    count = counter(verdict, output.verbose) if verify else uncounted
    if single:
        _show_layer(next(iter(layers)), count, verdict, output)
    else:
        _show_grid(layers, count, verdict, output)
    return verdict.conclude()


def _show_layer(layer: Comparison, count: Count, verdict: Verdict, output: OutputOptions) -> None:
    def shown(counted: Counts | None = None, *, pending: bool = False) -> "Sheet":
        from dscalc.report import sheet

        return sheet.one_layer(layer, output.unit, counted, pending=pending)

    live = output.format == "table" and not output.file and not output.get and sys.stdout.isatty()
    if count is not uncounted and live:
        from dscalc.report import table

        with verdict.held(), table.live(shown(pending=True), sys.stdout) as replace:
            counted = count(layer)
            replace(shown(counted))
        row = record(layer, counted)
    else:
        counted = count(layer)
        row = record(layer, counted)
        write(Answer([row], lambda _: shown(counted)), output)
    verdict.crosscheck(row)
    verdict.check(values(row, output.unit))


def _show_grid(layers: Grid, count: Count, verdict: Verdict, output: OutputOptions) -> None:
    from dscalc.report import sheet

    refuse_many(layers.count, output)

    def rows() -> Iterator[Record]:
        for layer in watched(layers, layers.count, output) if count is not uncounted else layers:
            row = record(layer, count(layer))
            where = partial(described, layer)
            verdict.crosscheck(row, where)
            if output.assertions:
                verdict.check(values(row, output.unit), where)
            yield row

    common = ", ".join(["layers", *unusual_options(next(iter(layers)))])
    answer = Answer(rows(), lambda held: sheet.grid(common, held, output.unit))
    if output.plot:
        held = list(answer.rows)
        with plotting(output.plot) as (plot, path, kind):
            plot.grid(held, path, kind)
        answer = answer._replace(rows=held)
    write(answer, output)
