"""``dscalc model MODULE:ATTR``: audit a torch model."""

from dataclasses import replace
from fractions import Fraction
from functools import partial
from math import prod
from typing import Annotated, Any, Literal

import typer

from dscalc import words
from dscalc.commands.answer import Asked, torch_needed, working, write
from dscalc.commands.options import (
    CheckOptions,
    ModelConventionOptions,
    OutputOptions,
    as_option,
)
from dscalc.core.blocks import Block
from dscalc.core.row import Row, summed_by_path
from dscalc.errors import CrosscheckError, DscalcError
from dscalc.record.fields import UNITS, Value, find
from dscalc.words import plural

EXAMPLES = """
  dscalc model mymodels.py:Net --input 3x224x224
  dscalc model mypackage.models:resnet50 --input 3x224x224 --kwargs '{"classes": 10}'
  dscalc model torchvision.models:resnet50 --input 3x224x224 --sort macs --top 10
  dscalc model mymodels.py:Net --input 3x224x224 --assert 'macs <= 600M'
"""


def model(
    target: Annotated[
        str,
        typer.Argument(
            metavar="MODULE:ATTR",
            help="A dotted module or a .py file, and in it an nn.Module or a callable that "
            "returns one.",
        ),
    ],
    output: OutputOptions,
    check: CheckOptions,
    conventions: ModelConventionOptions,
    inputs: Annotated[
        list[str],
        typer.Option(
            "--input",
            metavar="[NAME=]CxHxW[:DTYPE]",
            help="Shape of an input, without the batch; repeatable. mask=1x32 is given by keyword, "
            "ids=77:int64 has a dtype, t=:int64 is one number a sample.",
            rich_help_panel="Model",
        ),
    ] = [],  # noqa: B006  # typer copies it
    inputs_: Annotated[
        str | None,
        typer.Option(
            "--inputs",
            metavar="MODULE:ATTR",
            help="Inputs of any other kind: a value, or a callable that returns one; a dict gives "
            "keywords, a tuple positions.",
            rich_help_panel="Model",
        ),
    ] = None,
    kwargs: Annotated[
        str,
        typer.Option(
            "--kwargs",
            metavar="JSON",
            help="Keyword arguments for the callable.",
            rich_help_panel="Model",
        ),
    ] = "{}",
    batch: Annotated[
        str,
        typer.Option("-b", "--batch", metavar="N", help="Samples.", rich_help_panel="Model"),
    ] = "1",
    dtype: Annotated[
        Literal["float32", "float64", "float16", "bfloat16", "int64"] | None,
        typer.Option(
            "--dtype",
            help="Of the inputs, and of the model where it is one of floats; float32 inputs and "
            "the model as it is unless given.",
            rich_help_panel="Model",
        ),
    ] = None,
    as_: Annotated[
        str,
        as_option(
            help="What convolutions are rewritten as.",
            rich_help_panel="Model",
        ),
    ] = "separable",
    only: Annotated[
        list[str],
        typer.Option(
            "--only",
            metavar="GLOB",
            help="Replace only the convolutions with such module paths; repeatable.",
            rich_help_panel="Model",
        ),
    ] = [],  # noqa: B006  # typer copies it
    exclude: Annotated[
        list[str],
        typer.Option(
            "--except",
            metavar="GLOB",
            help="Do not replace convolutions with such module paths; repeatable.",
            rich_help_panel="Model",
        ),
    ] = [],  # noqa: B006
    sort: Annotated[
        str | None,
        typer.Option(
            "--sort",
            metavar="FIELD",
            help="Show the rows by this field, largest first.",
            rich_help_panel="Model",
        ),
    ] = None,
    depth: Annotated[
        str | None,
        typer.Option(
            "--depth",
            metavar="N",
            help="Sum rows by the first N parts of their module paths.",
            rich_help_panel="Model",
        ),
    ] = None,
    top: Annotated[
        str | None,
        typer.Option(
            "--top", metavar="N", help="Show only the first N rows.", rich_help_panel="Model"
        ),
    ] = None,
) -> int:
    """Audit a torch model: what does each operator cost, and what would be saved?

    The model's code is imported and traced on torch's meta device, where tensors have shapes and
    no values: nothing is computed. Load only code that you trust. A convolution stays as it is,
    and its kind says why, if it is pointwise, depthwise, grouped, transposed or would not save.

    Rows add up to the total, and the total is the model. --get and --assert read the total.
    """
    block = Block.parse(as_)
    conventions.check(output, batch)
    asked = Asked("model", block, output)
    verdict = asked.verdict
    key = find(sort, "model", block, output.unit) if sort is not None else None
    verify = check.wanted(conventions.proved and not output.get, asked.fields)
    most = words.whole(top, "--top") if top is not None else None
    levels = words.whole(depth, "--depth") if depth is not None else None
    samples = words.whole(batch, "--batch")
    arguments = words.keywords(kwargs, "--kwargs")
    with torch_needed():
        from dscalc.pytorch.audit import audit
        from dscalc.pytorch.crosscheck import versions
        from dscalc.pytorch.inputs import check_inputs, inputs_from, read_inputs
        from dscalc.pytorch.load import load_model, user_code
    with verdict.held():
        with working(output, f"counting {target}"):
            given = inputs_from(inputs_) if inputs_ else read_inputs(inputs, samples, dtype)
            loaded = load_model(target, arguments, dtype)
            check_inputs(loaded, given)
            count = partial(
                audit, loaded, *given.args, block=block, only=only or None,
                exclude=exclude or None, named=given.kwargs,
                quantities=bool(conventions.asked),
                rebuild=partial(load_model, target, arguments, dtype, meta=False),
            )  # fmt: skip
            with user_code(target):  # which may print
                try:
                    report = count(verify=verify)
                except CrosscheckError as error:
                    verdict.refuse(f"{error}; add --no-verify to do without")
                    report = count(verify=False)
        if verify and output.verbose:
            verdict.say(f"counted by {versions()}")
        report = replace(report, title=target, unit=output.unit)
        total = report.total
        assert total is not None
        if conventions.asked:
            from dscalc.commands.conventions import answer_model

            code = answer_model(report, conventions, output, loaded, given)
            return max(code, verdict.exit_code)
        for row in report.rows:
            verdict.crosscheck(row, report, partial(str, row.name))
        for fault in report.faults:
            verdict.differs(fault)
        verdict.check(total)
        for field in asked.get:
            if field.read(total) is None and field.read(total._replace(unknown=())) is not None:
                operators = ", ".join(total.unknown)
                raise DscalcError(f"{field.name} is not known: no formula for {operators}")
        rows = summed_by_path(report.rows, levels) if levels else list(report.rows)
        if key:
            rows.sort(key=lambda row: _sortable(key.read(row)), reverse=True)
        notes = report.notes
        if most and most < len(rows):
            notes = [_left_out(rows[most:], UNITS[output.unit][0]), *notes]
        report = replace(report, rows=rows[:most], notes=notes, checks=verdict.checks)
        write(report, output, asked.get)
    return verdict.conclude()


def _left_out(rows: list[Row], label: str) -> str:
    """What --top hides."""
    with_macs = sum(row.as_is.cost.macs > 0 for row in rows)
    without = len(rows) - with_macs
    parts = [(with_macs, f"with {label}"), (without, f"without {label}")]
    held = [f"{number:,} more {plural('row', number)} {what}" for number, what in parts if number]
    return f"{' and '.join(held)} {'is' if len(rows) == 1 else 'are'} in the total"


def _sortable(value: Value) -> tuple[int, Any, str]:
    """Numbers first, then words and sizes, then nothing."""
    if value is None:
        return 0, 0, ""
    if isinstance(value, int | float | Fraction):
        return 2, value, ""
    if isinstance(value, tuple):
        return 2, prod(value), ""
    return 1, 0, str(value)
