"""``dscalc IC OC F D``: one layer, or a grid of them."""

import sys
from collections import Counter
from dataclasses import replace
from operator import gt

from dscalc.commands.answer import Asked, counter, watched, write_alternatives
from dscalc.commands.options import (
    BlockOptions,
    CheckOptions,
    ConventionOptions,
    LayerOptions,
    OutputOptions,
    ScaleOptions,
    SizeArguments,
    Work,
)
from dscalc.core.blocks import STANDARD
from dscalc.core.conv import Conv
from dscalc.core.describe import beyond_one_position, described, titled
from dscalc.core.row import Count, Row, existing, layer_row, proved, total
from dscalc.errors import DscalcError
from dscalc.inputs.grid import Grid
from dscalc.report.report import Report

EXAMPLES = """
  dscalc 3 64 3 224
  dscalc 512 512 3 14 --get mac_ratio_exact
  dscalc 256 256 3x5 56 --stride 2 --padding 1 --bias -f json
  dscalc 64 32:1024:x2 3,5,7 14 -o sweep.csv
  dscalc 64 8:1024:8 3 56 --where 'separable_macs <= 50M' --sort out_channels
  dscalc 512 512 3 14 --assert 'separable_macs <= 60M'
"""


def compare(
    sizes: SizeArguments,
    layer: LayerOptions,
    rewriting: BlockOptions,
    scale: ScaleOptions,
    output: OutputOptions,
    check: CheckOptions,
    conventions: ConventionOptions,
    work: Work = False,
) -> int:
    """Compare a standard convolution with its depthwise separable replacement.

    See dscalc blocks for other ways to build the layer, and dscalc network for several layers.

    IC, OC, F and D each take a value, a list 32,64,128, a range 32:512:32 or a geometric range
    32:1024:x2. Several values make a grid, with one row for each combination.
    """
    block = rewriting.block()
    conventions.check(output, scale.batch)
    asked = Asked("compare", block, output)
    verdict = asked.verdict
    options = layer.parsed()
    layers = Grid(**vars(sizes), **options, **scale.parsed())
    single = layers.count == 1
    if single and output.plot:
        raise DscalcError(
            "--plot needs a grid; give a list or a range, such as 32:1024:x2 for OC, or drop it"
        )
    proves = asked.proves(check, by_default=single and conventions.proved)
    count = counter(asked) if proves else None
    like = next(iter(layers))
    title = titled(like, layers.count, block, one_position=layers.one_position)
    if work and not single:
        raise DscalcError("--work shows one layer; give one value for each of IC, OC, F and D")
    lines = []
    if work:
        from dscalc.core.work import worked

        lines += [*worked(like, STANDARD), *worked(like, block)]
    if single and layers.one_position:
        lines.append(beyond_one_position(like, block, options["padding"]))
    elif single and any(map(gt, like.kernel_size, [2 * size - 1 for size in like.input_size])):
        lines.append("some taps of the filter read only padding; the order is IC OC F D")
    report = asked.report(title, notes=lines)
    if conventions.asked:
        from dscalc.peers.command import answer_layer

        if not single:
            raise DscalcError(
                f"{conventions.asked[0]} takes one layer; give one value for each of IC, OC, F, D"
            )
        verdict.worse(answer_layer(layer_row(like, block), report, count, conventions, output))
        return verdict.exit_code
    if single and not asked.selection:
        _show_layer(layer_row(like, block), report, count, asked)
    else:
        _show_grid(layers, report, count, asked)
    return verdict.conclude()


def _show_layer(row: Row, report: Report, count: Count | None, asked: Asked) -> None:
    def answer(row: Row) -> Report:
        asked.verdict.crosscheck(row, report)
        asked.verdict.check(row)
        checks = asked.verdict.checks
        return replace(report, rows=[row], total=total([row]), checks=checks)

    output = asked.output
    live = output.format == "table" and not output.file and not output.get and sys.stdout.isatty()
    with asked.verdict.held():
        if count and live:
            from dscalc.report import sheet, table

            first = sheet.one_layer(replace(report, rows=[row]), row, pending=True)
            with table.live(first, sys.stdout) as replaced:
                row = proved(row, count)
                replaced(sheet.one_layer(answer(row), row))
        else:
            found = answer(proved(row, count) if count else row)
            asked.write(replace(found, total=None) if asked.get else found)


def _show_grid(layers: Grid, report: Report, count: Count | None, asked: Asked) -> None:
    asked.refuse_many(layers.count)
    left_out: Counter[str] = Counter()

    def name(row: Row) -> str:
        assert isinstance(row.layer, Conv)
        return described(row.layer, report.block)

    grid = watched(layers, layers.count, asked.output) if count else layers
    rows = existing(grid, [report.block], left_out)
    write_alternatives(report, asked.shown(rows, report, count, name), asked, name, left_out)
