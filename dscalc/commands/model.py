"""``dscalc model MODULE:ATTR``: audit a torch model."""

import sys
from contextlib import redirect_stdout
from fractions import Fraction
from functools import partial
from typing import Annotated, Any, Literal

import typer

from dscalc import words
from dscalc.checks.assertion import check_field
from dscalc.commands.answer import Answer, plotting, torch_needed, verdict_on, working, write
from dscalc.commands.options import CheckOptions, OutputOptions
from dscalc.errors import CrosscheckError, DscalcError
from dscalc.record.fields import (
    MODEL_FIELDS,
    Record,
    Value,
    model_object,
    model_values,
    names,
    values,
)
from dscalc.report import sheet

EXAMPLES = """
  dscalc model mymodels.py:Net --input 3x224x224
  dscalc model mypackage.models:resnet50 --input 3x224x224 --kwargs '{"classes": 10}'
  dscalc model torchvision.models:resnet50 --input 3x224x224 --sort standard_macs --top 10
  dscalc model mymodels.py:Net --input 3x224x224 --assert 'model_macs <= 600M'
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
    inputs: Annotated[
        list[str],
        typer.Option(
            "--input",
            metavar="CxHxW",
            help="Shape of an input, without the batch; repeatable, for several arguments.",
            rich_help_panel="Model",
        ),
    ],
    output: OutputOptions,
    check: CheckOptions,
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
    top: Annotated[
        str | None,
        typer.Option(
            "--top", metavar="N", help="Show only the first N rows.", rich_help_panel="Model"
        ),
    ] = None,
) -> int:
    """Audit a torch model: what would separable convolutions save?

    The model's code is imported and run, once on random inputs and twice more for fvcore; run only
    code that you trust. A convolution stays as it is, and its kind says why, where it is
    pointwise, depthwise, grouped, transposed or would not save.

    Here standard is the model as it is, and separable the model with its eligible convolutions
    replaced.

    --get and --assert hold the total, and know the whole model as model_macs, model_params,
    model_separable_macs and model_separable_params.
    """
    verdict = verdict_on(output, more=MODEL_FIELDS)
    if sort is not None:
        check_field(sort, names(Record._fields, output.unit))
    verify = check.wanted(not output.get, [*verdict.assertion_fields, *output.get])
    most = words.whole(top, "--top") if top is not None else None
    shapes = [words.shape(shape, "--input") for shape in inputs]
    samples = words.whole(batch, "--batch")
    arguments = words.keywords(kwargs, "--kwargs")
    with torch_needed():
        from dscalc.pytorch.audit import audit, make_input
        from dscalc.pytorch.crosscheck import versions
        from dscalc.pytorch.load import load_model
    with working(output, f"running {target}"), redirect_stdout(sys.stderr):  # it may print
        tensors = [make_input((samples, *shape), dtype or "float32") for shape in shapes]
        loaded = load_model(target, arguments, dtype)
        choose = partial(audit, loaded, *tensors, only=only or None, exclude=exclude or None)
        try:
            found = choose(verify=verify)
        except CrosscheckError as error:
            verdict.refuse(f"{error}; add --no-verify to do without")
            found = choose(verify=False)
    if verify and output.verbose:
        verdict.say(f"counted by {versions()}")
    rows, sums = found.records, found.total
    if sort is not None:
        rows = sorted(rows, key=lambda row: _sortable(values(row, output.unit)[sort]), reverse=True)
    shown = rows[:most]
    hidden = len(rows) - len(shown)
    known = values(sums, output.unit) | model_values(found.model, output.unit)
    for field in (*verdict.assertion_fields, *output.get):
        if field.startswith("model_") and known[field] is None:
            reason = "what runs depends on the results of its convolutions"
            if found.model.macs is None:
                operators = ", ".join(found.model.uncounted_operators)
                reason = f"fvcore has no count for one of {operators}"
            raise DscalcError(f"{field} is not known: {reason}")
    if output.plot:
        with plotting(output.plot) as (plot, path, kind):
            sides = ("as it is", "with separable convolutions")
            plot.network(shown, path, kind, output.unit, target, sides)
    write(
        Answer(
            shown,
            lambda _: sheet.model(target, shown, sums, found.model, output.unit, hidden),
            known=[known],
            total=lambda _: sums,
            more={"model": model_object(found.model, output.unit)},
        ),
        output,
    )
    for row in found.records:
        verdict.crosscheck(row, partial(str, row.name))
    if found.crosscheck == "mismatch" and sums.crosscheck != "mismatch":
        verdict.differs("the model holds other parameters than its records say")
    verdict.check(known)
    return verdict.conclude()


def _sortable(value: Value) -> tuple[int, Any, str]:
    """Numbers first, then words and sizes, then nothing."""
    if value is None:
        return 0, 0, ""
    if isinstance(value, int | float | Fraction):
        return 2, value, ""
    return 1, 0, str(value)
