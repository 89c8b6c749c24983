"""``dscalc model MODULE:ATTR``: audit a torch model."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal

import typer

from dscalc import parse
from dscalc.baseline.command import BaselineOptions
from dscalc.commands.answer import (
    Asked,
    torch_needed,
    working,
    write_alternatives,
    write_with_total,
)
from dscalc.commands.options import (
    CheckOptions,
    ModelConventionOptions,
    OutputOptions,
    as_option,
    except_option,
    only_option,
)
from dscalc.commands.verdict import named
from dscalc.core.blocks import Block
from dscalc.core.row import Row, summed_by_path
from dscalc.errors import CrosscheckError, DscalcError
from dscalc.report.report import Report

EXAMPLES = """
  dscalc model mymodels.py:Net --input 3x224x224
  dscalc model mypackage:resnet50 --input 3x224x224 --kwargs '{"width": 64}'
  dscalc model torchvision.models:vgg16 --input 3x224x224 --sort macs --top 5
  dscalc model mymodels.py:Net --input 3x224x224 --assert 'macs <= 600M'
  dscalc model mymodels.py:Net --input 3x224x224 --baseline main.json
"""

_option = partial(typer.Option, rich_help_panel="Model")


def model(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="MODULE:ATTR...",
            help="Module or .py file, and in it an nn.Module or a callable that returns one. "
            "Several models: one row of totals each.",
        ),
    ],
    output: OutputOptions,
    check: CheckOptions,
    held_against: BaselineOptions,
    conventions: ModelConventionOptions,
    ctx: typer.Context,
    inputs: Annotated[
        list[str],
        _option(
            "--input",
            metavar="[NAME=]CxHxW[:DTYPE]",
            help="Shape of an input, without the batch: 3x224x224, by keyword mask=1x32, with a "
            "dtype ids=77:int64, or one number per sample t=:int64. Repeatable.",
        ),
    ] = [],  # noqa: B006  # typer copies it
    inputs_: Annotated[
        str | None,
        _option(
            "--inputs",
            metavar="MODULE:ATTR",
            help="Inputs of any other kind: a value, or a callable that returns one. A tuple is "
            "passed by position, a dict by keyword.",
        ),
    ] = None,
    kwargs: Annotated[
        str, _option("--kwargs", metavar="JSON", help="Keyword arguments for the callable.")
    ] = "{}",
    batch: Annotated[str, _option("-b", "--batch", metavar="N", help="Batch size.")] = "1",
    dtype: Annotated[
        Literal["float32", "float64", "float16", "bfloat16", "int64"] | None,
        _option(
            "--dtype",
            help="Type of the inputs; a float type also converts the model. Default: float32 "
            "inputs, and the model unchanged.",
        ),
    ] = None,
    as_: Annotated[
        str, as_option(help="Block that replaces convolutions.", rich_help_panel="Model")
    ] = "separable",
    only: Annotated[
        list[str],
        only_option(
            help="Replace only convolutions whose module path matches GLOB. Repeatable.",
            rich_help_panel="Model",
        ),
    ] = [],  # noqa: B006  # typer copies it
    exclude: Annotated[
        list[str],
        except_option(
            help="Do not replace convolutions whose module path matches GLOB. Repeatable.",
            rich_help_panel="Model",
        ),
    ] = [],  # noqa: B006
    depth: Annotated[
        str | None,
        _option("--depth", metavar="N", help="Sum rows by the first N parts of the module path."),
    ] = None,
) -> int:
    """Audit a torch model: what does each operator cost, and what would a replacement save?

    dscalc imports the model's code and traces it on torch's meta device, where tensors have
    shapes and no values, so nothing is computed. Load only code that you trust. A convolution
    that is pointwise, depthwise, grouped or transposed, or would save nothing, stays as it is,
    and its kind says why.

    The rows add up to the total of the model. --get and --assert read the total.
    """
    block = Block.parse(as_, "--as", standard="what the model already has")
    conventions.check(output, batch, baseline=held_against.baseline, several=len(targets) > 1)
    before = held_against.read(ctx, "model", block)
    asked = Asked("model", block, output, before)
    verdict = asked.verdict
    verify = asked.proves(check, by_default=conventions.proved)
    levels = parse.whole(depth, "--depth") if depth is not None else None
    samples = parse.whole(batch, "--batch")
    arguments = parse.keywords(kwargs, "--kwargs")
    if inputs_ and (inputs or samples > 1):
        raise DscalcError(
            f"--inputs gives every input as it is; drop {'--input' if inputs else '--batch'}"
        )
    if len(targets) > 1:
        if levels:
            raise DscalcError("--depth sums the rows of one model; give one, or drop it")
        held_against.refuse_several()
    with torch_needed():
        from dscalc.pytorch.audit import audit
        from dscalc.pytorch.crosscheck import versions
        from dscalc.pytorch.inputs import check_inputs, inputs_from, read_inputs
        from dscalc.pytorch.load import load_model, torch_defaults, user_code

        observe: type[Any] | None = None
        if conventions.asked:
            from dscalc.peers.observer import Observer

            observe = Observer

    def traced(target: str) -> tuple[Report, Any, Any]:
        """What a model costs, the model, and its inputs."""
        with working(output, f"counting {target}"):
            given = inputs_from(inputs_) if inputs_ else read_inputs(inputs, samples, dtype)
            loaded = load_model(target, arguments, dtype)
            check_inputs(loaded, given)
            count = partial(
                audit, loaded, *given.args, block=block, only=only or None,
                exclude=exclude or None, named=given.kwargs,
                observe=observe, unit=output.unit,
                rebuild=partial(load_model, target, arguments, dtype, meta=False),
            )  # fmt: skip
            with user_code(target):  # which may print
                try:
                    report = count(verify=verify)
                except CrosscheckError as error:
                    verdict.refuse(f"{error}; skip the check with --no-verify")
                    report = count(verify=False)
        if verify and output.verbose:
            verdict.say(f"counted by {versions()}")
        return replace(report, title=target), loaded, given

    def audited(target: str) -> Report:
        with torch_defaults():
            report, *_ = traced(target)
        for row in report.rows:
            verdict.crosscheck(row, report)
        for fault in report.faults:
            verdict.differs(fault)
        whole = report.total
        assert whole is not None
        for field in asked.get:
            if field.read(whole) is None and field.read(whole._replace(unknown=())) is not None:
                operators = ", ".join(whole.unknown)
                raise DscalcError(f"{field.name} is not known: no formula for {operators}")
        return report

    if len(targets) > 1:
        _show_totals(targets, audited, asked)
        return verdict.conclude()
    if conventions.asked:
        from dscalc.peers.command import answer_model

        with verdict.held(), torch_defaults():
            report, loaded, given = traced(targets[0])
            verdict.worse(answer_model(report, conventions, output, loaded, given))
        return verdict.exit_code
    with verdict.held():
        report = audited(targets[0])
        if levels:
            report = replace(report, rows=summed_by_path(report.rows, levels))
        write_with_total(report, asked)
    return verdict.conclude()


def _show_totals(targets: list[str], audited: Callable[[str], Report], asked: Asked) -> None:
    """A row for each model, of its totals; one that has no answer hides no other."""

    def rows() -> Iterator[Row]:
        for target in targets:
            try:
                whole = audited(target).total
            except DscalcError as error:
                asked.verdict.refuse(f"{target}: {error}")
                continue
            assert whole is not None
            yield whole._replace(name=target, kind="model")

    report = asked.report(f"{len(targets):,} models")
    shown = asked.shown(rows(), report, None, named, told=True)
    write_alternatives(report, shown, asked, named)
