"""``dscalc model MODULE:ATTR``: what a torch model costs."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal

import typer

from dscalc import parse
from dscalc.commands.answer import Answer
from dscalc.commands.asked import Asked
from dscalc.commands.meant import names_in, refuse_target
from dscalc.commands.options import (
    OutputOptions,
    ProofOptions,
    Questions,
    as_option,
    chosen_block,
    except_option,
    only_option,
)
from dscalc.commands.proof import torch_needed
from dscalc.commands.writing import working
from dscalc.core import fields
from dscalc.core.row import Row
from dscalc.errors import CrosscheckError, DscalcError
from dscalc.report.report import Report

EXAMPLES = """
  dscalc model mymodels.py:Net --input 3x224x224
  dscalc model mypackage:resnet50 --input 3x224x224 --kwargs '{"width": 64}'
  dscalc model torchvision.models:vgg16 --input 3x224x224 --sort macs --top 5
  dscalc model torchvision.models:resnet50 --input 3x224x224 --as separable
  dscalc model torchvision.models:resnet50 --input 3x224x224 --backward
  dscalc model mymodels.py:Net --input 3x224x224 --assert 'macs <= 600M'
"""
FIELDS = partial(fields.model_fields, nonzero=True)

_DEPTH = "--depth, if it is not all,"
_option = partial(typer.Option, rich_help_panel="Model")


class _AfterColon(str):
    """A completion that typer keeps although it does not start with the colon that bash gives."""

    def startswith(self, *args: Any) -> bool:
        return args == (":",) or super().startswith(*args)


def _names_in_file(ctx: typer.Context, incomplete: str) -> list[str]:
    """Completions of ``FILE.py:``; to bash, a colon is a word of its own."""
    file, colon, _ = incomplete.rpartition(":")
    if file:
        return [f"{file}:{name}" for name in names_in(file)]
    words = [*(ctx.params.get("targets") or ()), *colon]
    return (
        [_AfterColon(name) for name in names_in(words[-2])]
        if words[1:] and words[-1] == ":"
        else []
    )


def model(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="MODULE:ATTR...",
            autocompletion=_names_in_file,
            help="Module or .py file, and in it an nn.Module or a callable that returns one; or a "
            ".pt2 file of torch.export. Several models: one row of totals each.",
        ),
    ],
    output: OutputOptions,
    proof: ProofOptions,
    questions: Questions,
    ctx: typer.Context,
    inputs: Annotated[
        list[str],
        _option(
            "--input",
            metavar="[NAME=]CxHxW[:DTYPE]|[NAME]:=JSON",
            help="Shape of an input, without the batch: 3x224x224, by keyword mask=1x32, with a "
            "dtype ids=77:int64, or one number per sample t=:int64. Or a value: flag:=true, "
            "lengths:=[100].",
        ),
    ] = [],  # noqa: B006  # typer copies it
    inputs_: Annotated[
        str | None,
        _option(
            "--inputs",
            metavar="MODULE:ATTR",
            help="Inputs of any other kind: a value or a callable; a dict is passed by keyword.",
        ),
    ] = None,
    kwargs: Annotated[
        str,
        _option(
            "--kwargs",
            metavar="JSON",
            help="Arguments of the callable: '{\"width\": 64}'.",
            show_default=False,
        ),
    ] = "{}",
    batch: Annotated[str, _option("-b", "--batch", metavar="N", help="Batch size.")] = "1",
    dtype: Annotated[
        Literal["float32", "float64", "float16", "bfloat16", "int64"] | None,
        _option(
            "--dtype",
            metavar="DTYPE",
            help="Of the inputs: int64, float32, float64, float16 or bfloat16. A float also "
            "converts the model.",
        ),
    ] = None,
    bits: Annotated[
        Literal["8", "16", "32"] | None,
        _option("--bits", metavar="N", help="Bits of a float in memory: 8, 16 or 32."),
    ] = None,
    as_: Annotated[
        str | None,
        as_option(
            help="Also show the cost as this block.",
            rich_help_panel="Model",
        ),
    ] = None,
    only: Annotated[
        list[str],
        only_option(
            help="Of --as: only modules whose path matches.",
            rich_help_panel="Model",
        ),
    ] = [],  # noqa: B006  # typer copies it
    exclude: Annotated[
        list[str],
        except_option(
            help="Of --as: not these modules.",
            rich_help_panel="Model",
        ),
    ] = [],  # noqa: B006
    backward: Annotated[
        bool,
        _option(
            "--backward",
            help="Also count a step of training.",
        ),
    ] = False,
    depth: Annotated[
        str | None,
        _option(
            "--depth",
            metavar="N|all",
            help="Sum rows by the first N parts of the path. Default: so that a table has at most "
            "30 rows.",
        ),
    ] = None,
) -> Answer:
    """Count a torch model: its MACs, params and memory, where they are, and what a block saves.

    dscalc imports the model's code and traces it on torch's meta device, where tensors have
    shapes and no values, so nothing is computed. Load only code that you trust.
    """
    for target in targets:
        refuse_target(target)
    read = [name.rpartition(":")[0] or name for name in (*targets, inputs_ or "")]
    output.refuse_to_replace(read, "the file of the model, or of its inputs")
    block = chosen_block(as_, only, exclude, standard="what the model already has")
    samples, arguments = parse.whole(batch, "--batch"), parse.keywords(kwargs, "--kwargs")
    levels = (
        None if depth is None else 0 if depth == "all" else parse.whole(depth, _DEPTH, such_as=2)
    )
    if inputs_ and (inputs or samples > 1):
        raise DscalcError(
            f"--inputs gives every input as it is; drop {'--input' if inputs else '--batch'}"
        )
    if bits and dtype not in (None, "int64"):
        raise DscalcError(
            f"--bits {bits} and --dtype {dtype} both give the size of a float; drop one"
        )
    if len(targets) > 1 and depth is not None:
        raise DscalcError("--depth sums the rows of one model; give one, or drop it")
    loaded: list[Any] = []

    def at_size(size: int) -> Report:
        return _audited(loaded[0].at_size, asked, size, **options)

    vocabulary = fields.training_fields if backward else fields.model_fields
    asked = Asked(
        ctx, partial(vocabulary, nonzero=True), block, output, proof, questions,
        several=len(targets) > 1, batch_size=samples, at_size=at_size,
    )  # fmt: skip
    nonzero = any(field.name.startswith("nonzero_") for field in asked.fields)
    options = {
        "block": block, "only": only or None, "exclude": exclude or None, "unit": output.unit,
        "observe": asked.question.observe, "verify": asked.proves(by_default=True),
        "bits": int(bits) if bits else None,
        "backward": backward, "nonzero": nonzero,
    }  # fmt: skip
    with torch_needed():
        from dscalc.pytorch.target import target_of

    def audited(name: str) -> Report:
        target = target_of(
            name, inputs, inputs_ or "", batch=samples, arguments=arguments, dtype=dtype
        )
        loaded[:] = [target]
        with working(output, f"counting {name}"):
            return _audited(target.audit, asked, **options)

    if len(targets) > 1:
        named = vocabulary(block, output.unit, nonzero=nonzero)
        return Answer(_several_models(targets, audited, asked, named), asked)
    return Answer(replace(audited(targets[0]), depth=levels), asked)


def _audited(audit: Callable[..., Report], asked: Asked, *args: Any, **options: Any) -> Report:
    """Audit a model; if fvcore cannot count a layer, report it and skip the cross-check."""
    from dscalc.pytorch.crosscheck import versions

    try:
        report = audit(*args, **options)
    except CrosscheckError as error:
        asked.verdict.refuse(f"{error}; skip the check with --no-verify")
        report = audit(*args, **{**options, "verify": False})
    if options["verify"] and asked.output.verbose:
        asked.verdict.say(f"counted by {versions()}")
    return report


def _several_models(
    targets: list[str], audited: Callable[[str], Report], asked: Asked, named: fields.Fields
) -> Report:
    """One row of totals per model; a model without an answer is reported and skipped."""

    def rows() -> Iterator[Row]:
        for target in targets:
            try:
                report = audited(target)
            except DscalcError as error:
                asked.verdict.refuse(f"{target}: {error}")
                continue
            yield report.whole._replace(name=target, kind="model", extra=report)

    return Report(
        "model", asked.block, named, rows(), unit=asked.output.unit,
        title=f"{len(targets):,} models",
    )  # fmt: skip
