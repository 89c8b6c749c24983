"""The options that commands share, each declared once."""

import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from functools import partial, wraps
from inspect import Parameter, Signature, signature
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import typer
from typer.core import TyperCommand

from dscalc import parse, show, slices
from dscalc.commands.question import Question
from dscalc.core.blocks import DEFAULTS, SEPARABLE, STANDARD, Block
from dscalc.core.fields import Field, Fields, Unit, Vocabulary
from dscalc.errors import DscalcError


class Run(NamedTuple):
    """The context of a command.

    Args:
        typed: its arguments.
        answer: answers another command line, for a command that runs others.
        write: writes a line for people.
    """

    typed: Sequence[str]
    answer: Callable[[list[str]], Any]
    write: Callable[[str], object]


Format = Literal["table", "json", "jsonl", "csv", "markdown", "svg"]
_TABLE: Format = "table"
_FORMATS: dict[str, Format] = {
    ".json": "json", ".jsonl": "jsonl", ".csv": "csv", ".md": "markdown", ".svg": "svg",
    ".txt": _TABLE,
}  # fmt: skip

_OF_ALL = "Rows", "Output"  # what every command has, last in its help

layer_option = partial(typer.Option, rich_help_panel="Layer")
output_option = partial(typer.Option, rich_help_panel="Output")
_rows_option = partial(typer.Option, rich_help_panel="Rows")


def _fields_asked(ctx: typer.Context) -> Fields:
    """The fields of a command line, as far as it is typed."""
    command: Any = ctx.command.callback
    vocabulary: Vocabulary = sys.modules[command.__module__].FIELDS
    block = usual_block(ctx.info_name or "")
    as_, unit = ctx.params.get("as_"), ctx.params.get("unit")
    if as_:
        several = ctx.info_name == "bench" and ("," in as_ or as_ == "all")
        with suppress(DscalcError):  # the run reports the error
            block = STANDARD if several else Block.parse(as_)
    return vocabulary(block, unit or "macs")


def usual_block(command: str) -> Block | None:
    """What a command's rows are rewritten as where --as does not say."""
    if command in ("network", "model"):
        return None
    return STANDARD if command == "blocks" else SEPARABLE


def chosen_block(
    as_: str | None, only: Sequence[str], exclude: Sequence[str], *, standard: str = ""
) -> Block | None:
    """The block of --as; None if there is none.

    Raises:
        DscalcError: it is no block, or --only or --except is given without it.
    """
    if as_ is not None:
        return Block.parse(as_, "--as", standard=standard)
    if only or exclude:
        option = "--only" if only else "--except"
        raise DscalcError(f"{option} needs --as BLOCK, such as --as separable")
    return None


def _field_names(ctx: typer.Context, incomplete: str) -> list[str]:
    return [field.name for field in _fields_asked(ctx) if field.name.startswith(incomplete)]


def _number_names(ctx: typer.Context, incomplete: str) -> list[str]:
    numbers = [field.name for field in _fields_asked(ctx) if field.is_number]
    return [name for name in numbers if name.startswith(incomplete)]


def _block_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Completions of a block; in a list, of its last block."""
    names = [name for name in DEFAULTS if name != str(STANDARD)]
    if ctx.info_name in ("network", "blocks"):
        names.append(str(STANDARD))
    before, last = "", incomplete
    if ctx.info_name in ("bench", "blocks"):
        names += ["all"] if ctx.info_name == "bench" else []
        head, comma, last = incomplete.rpartition(",")
        before = head + comma
    return [before + name for name in names if name.startswith(last)]


blocks_option = partial(layer_option, autocompletion=_block_names)
as_option = partial(blocks_option, "--as", metavar="BLOCK")
only_option = partial(layer_option, "--only", metavar="GLOB")
except_option = partial(layer_option, "--except", metavar="GLOB")

Work = Annotated[
    bool,
    output_option("--work", help="Show the arithmetic of each step, in symbols and in numbers."),
]


@dataclass(init=False, eq=False, repr=False)
class SizeArguments:
    """The sizes of a layer, or of a grid of layers."""

    ic: Annotated[str, typer.Argument(metavar="IC", help="Input channels.")]
    oc: Annotated[str, typer.Argument(metavar="OC", help="Output channels.")]
    f: Annotated[str, typer.Argument(metavar="F", help="Filter size: 3 or 3x5.")]
    d: Annotated[
        str | None,
        typer.Argument(
            metavar="[D]",
            show_default=False,
            help="Input feature map size: 14 or 224x160. If omitted: one output position.",
        ),
    ] = None

    def parsed(self) -> dict[str, Any]:
        """The sizes as keywords of `dscalc.compare`, which reads their text."""
        if self.ic[:1].isalpha():
            from dscalc.commands.meant import refuse_for

            refuse_for("IC OC F [D]", self.ic)
        names = ("in_channels", "out_channels", "kernel_size", "input_size")
        return dict(zip(names, (self.ic, self.oc, self.f, self.d), strict=True))


@dataclass(init=False, eq=False, repr=False)
class LayerOptions:
    """Options that all layers of a grid share."""

    stride: Annotated[
        str, layer_option("-s", "--stride", metavar="N|HxW", help="Step of the filter.")
    ] = "1"
    padding: Annotated[
        str,
        layer_option(
            "-p",
            "--padding",
            metavar="PADDING",
            help="Zeros at each end: N, HxW or valid, which is none. Default: same, so that the "
            "output is ceil(D / stride).",
            show_default=False,
        ),
    ] = "same"
    dilation: Annotated[
        str,
        layer_option("--dilation", metavar="N|HxW", help="Distance between taps."),
    ] = "1"
    groups: Annotated[
        str, layer_option("--groups", metavar="G", help="Groups of the convolution.")
    ] = "1"
    bias: Annotated[bool, layer_option("--bias/--no-bias", help="Bias in every convolution.")] = (
        False
    )

    def parsed(self) -> dict[str, Any]:
        """The options as keywords of `Conv`.

        Raises:
            DscalcError: a value is malformed.
        """
        return {
            "stride": parse.size(self.stride, "--stride"),
            "padding": parse.padding(self.padding, "--padding"),
            "dilation": parse.size(self.dilation, "--dilation"),
            "groups": parse.whole(self.groups, "--groups"),
            "bias": self.bias,
        }


@dataclass(init=False, eq=False, repr=False)
class BlockOptions:
    """The block that the layer is rewritten as."""

    as_: Annotated[
        str,
        as_option(
            help="What replaces it: any of dscalc blocks.",
        ),
    ] = "separable"
    depth_multiplier: Annotated[
        str | None,
        layer_option(
            "-m",
            "--depth-multiplier",
            metavar="N",
            help="Short for --as separable:N.",
        ),
    ] = None
    depthwise_bias: Annotated[
        bool | None,
        layer_option(
            "--depthwise-bias/--no-depthwise-bias",
            help="Bias in the depthwise step. Default: as --bias.",
        ),
    ] = None

    def block(self) -> Block:
        """The block that the layer is rewritten as.

        Raises:
            DscalcError: there is no such block, or options contradict each other.
        """
        if self.as_ == "all" or "," in self.as_:
            raise DscalcError(
                f"--as takes one block, got {show.quoted(self.as_)}; "
                "dscalc blocks sets several side by side"
            )
        block = Block.parse(self.as_, "--as", standard="what the layer is compared with")
        if self.depth_multiplier is not None:
            multiplier = parse.whole(self.depth_multiplier, "--depth-multiplier")
            if self.as_ != str(SEPARABLE):
                raise DscalcError(
                    f"--depth-multiplier is short for --as separable:{multiplier}; drop one of them"
                )
            block = block._replace(numbers=(multiplier,))
        if self.depthwise_bias is None:
            return block
        if "depthwise" not in block.step_names:
            given = "--depthwise-bias" if self.depthwise_bias else "--no-depthwise-bias"
            raise DscalcError(f"{block} has no depthwise step; drop {given}")
        return block._replace(biases=(("depthwise", self.depthwise_bias),))


@dataclass(init=False, eq=False, repr=False)
class ScaleOptions:
    """Options that scale a layer or a whole network."""

    batch: Annotated[
        str, layer_option("-b", "--batch", metavar="N", help="Batch size; multiplies the MACs.")
    ] = "1"
    dims: Annotated[
        Literal["1", "2", "3"] | None,
        layer_option(
            "--dims",
            metavar="1|2|3",
            help="Axes. Default: those of F or D (3x3x3), else 2.",
        ),
    ] = None
    width_multiplier: Annotated[
        str,
        layer_option(
            "--width-multiplier",
            metavar="ALPHA",
            help="floor(ALPHA * channels) channels.",
        ),
    ] = "1"
    resolution_multiplier: Annotated[
        str,
        layer_option(
            "--resolution-multiplier",
            metavar="RHO",
            help="D becomes round(RHO * D).",
        ),
    ] = "1"

    def variants(self) -> list[dict[str, Any]]:
        """The options as keywords, once for each combination of the listed multipliers.

        Raises:
            DscalcError: a value is malformed.
        """
        widths = parse.multipliers(self.width_multiplier, "--width-multiplier")
        resolutions = parse.multipliers(self.resolution_multiplier, "--resolution-multiplier")
        return [
            {
                "batch_size": parse.whole(self.batch, "--batch"),
                "dims": int(self.dims) if self.dims else None,
                "width_multiplier": width,
                "resolution_multiplier": resolution,
            }
            for width, resolution in product(widths, resolutions)
        ]

    def parsed(self) -> dict[str, Any]:
        """The options as keywords of `dscalc.compare`.

        Raises:
            DscalcError: a value is malformed, or a multiplier is a list.
        """
        for name, text in (
            ("--width-multiplier", self.width_multiplier),
            ("--resolution-multiplier", self.resolution_multiplier),
        ):
            if "," in text or ":" in text:
                raise DscalcError(
                    f"{name} takes a list only in dscalc network, got {show.quoted(text)}; "
                    "list the channels or sizes instead"
                )
        [only] = self.variants()
        return only


@dataclass(init=False, eq=False, repr=False)
class ProofOptions:
    """Whether to cross-check the answer."""

    verify: Annotated[
        bool | None,
        output_option(
            "--verify/--no-verify",
            help="Count again with fvcore and torch. Default: for one layer, network or model, "
            "without --get.",
        ),
    ] = None

    def wanted(self, by_default: bool, asked: Iterable[Field]) -> bool:
        """Whether to cross-check: as --verify says, else by default or if it counts an asked field.

        Raises:
            DscalcError: --no-verify is given, but the cross-check counts a number that is asked
                for.
        """
        counted = [field for field in asked if field.formula]
        numbers = [field.name for field in counted if field.is_number]
        if numbers and self.verify is False:
            raise DscalcError(f"{numbers[0]} comes from the cross-check; drop --no-verify")
        return self.verify if self.verify is not None else bool(counted) or by_default


_STDOUT = ("-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")  # of a model, 1 is not the answer's


class Questions(list[Question]):
    """The options that slices add to a command, one group each."""


@dataclass(init=False, eq=False, repr=False)
class ReportOptions:
    """How to write a report."""

    asked_format: Annotated[
        Format | None,
        output_option(
            "-f",
            "--format",
            metavar="FORMAT",
            help="table, json, jsonl, csv, markdown or svg.",
        ),
    ] = None
    file: Annotated[
        Path | None,
        output_option(
            "-o",
            "--output",
            metavar="FILE",
            readable=False,
            help=f"Write to FILE; {' '.join(_FORMATS)} give the format.",
        ),
    ] = None
    quiet: Annotated[
        bool, output_option("-q", "--quiet", help="Print no progress, notes or verdicts.")
    ] = False
    verbose: Annotated[
        bool,
        output_option("-v", "--verbose", help="On stderr: what was counted, tracebacks."),
    ] = False
    format = _TABLE  # no option: the format in use

    def __post_init__(self) -> None:
        """Choose the format.

        Raises:
            DscalcError: there is no --format, and the ending of the file gives none.
        """
        if self.file and str(self.file) in _STDOUT:
            self.file = None
        if self.asked_format:
            self.format = self.asked_format
        elif self.file:
            ending = self.file.suffix.lower()
            if ending not in _FORMATS:
                raise DscalcError(
                    f"--output {show.printable(str(self.file))}: its ending says no format; end "
                    f"it in {' '.join(_FORMATS)}, or give --format"
                )
            self.format = _FORMATS[ending]

    @property
    def written(self) -> dict[str, Path | None]:
        """The files to write, by the option that names them."""
        return {"--output": self.file}

    def refuse_to_replace(self, sources: Iterable[str | Path], what: str) -> None:
        """Refuse to write over a file that the answer is about.

        Args:
            sources: that the command reads; some may be no files.
            what: what they are to the user.

        Raises:
            DscalcError: a file to write is one of them.
        """
        sources = list(sources)
        for option, file in self.written.items():
            if file and any(_is_same(file, source) for source in sources):
                raise DscalcError(
                    f"{option} {show.printable(str(file))} is {what}; name another file"
                )


def _is_same(file: Path, source: str | Path) -> bool:
    try:
        return file.samefile(source)
    except (OSError, ValueError):  # one of them is no file
        return False


@dataclass(init=False, eq=False, repr=False)
class OutputOptions(ReportOptions):
    """How to show and check the answer."""

    plot: Annotated[
        Path | None,
        output_option(
            "--plot",
            metavar="FILE",
            readable=False,
            help="Also draw a picture: .png, .svg or .pdf.",
        ),
    ] = None
    get: Annotated[
        list[str],
        output_option(
            "--get",
            metavar="FIELD",
            help="Print only this field, of the total if there is one, else of each row.",
            autocompletion=_field_names,
        ),
    ] = field(default_factory=list)
    get_rows: Annotated[
        bool, output_option("--rows", help="With --get: print each row, in any case.")
    ] = False
    assertions: Annotated[
        list[str],
        output_option(
            "--assert",
            metavar="CONDITION",
            help="Exit with 1 unless the total passes; without a total, each row, such as "
            "'mac_ratio <= 1/8'.",
            autocompletion=_number_names,
        ),
    ] = field(default_factory=list)
    assertions_each: Annotated[
        list[str],
        output_option(
            "--assert-each",
            metavar="CONDITION",
            help="Exit with 1 unless each row that is shown passes.",
            autocompletion=_number_names,
        ),
    ] = field(default_factory=list)
    where: Annotated[
        list[str],
        _rows_option(
            "--where",
            metavar="CONDITION",
            help="Show only rows that pass FIELD OP NUMBER, such as 'macs <= 50M'. Exit with 1 if "
            "none does.",
            autocompletion=_number_names,
        ),
    ] = field(default_factory=list)
    sort: Annotated[
        str | None,
        _rows_option(
            "--sort",
            metavar="FIELD",
            help="Sort rows by FIELD, largest first.",
            autocompletion=_number_names,
        ),
    ] = None
    reverse: Annotated[bool, _rows_option("--reverse", help="With --sort: smallest first.")] = False
    top: Annotated[
        str | None, _rows_option("--top", metavar="N", help="Show only the first N rows.")
    ] = None
    unit: Annotated[
        Unit, output_option("--unit", metavar="UNIT", help="macs, or flops: 2 per MAC.")
    ] = "macs"

    def __post_init__(self) -> None:
        """Choose the format; the bare values of --get have none.

        Raises:
            DscalcError: --get and --format are both given, or the ending of the file gives no
                format.
        """
        if self.get and self.asked_format:
            raise DscalcError("--get prints bare values; drop --format")
        if self.get:
            self.asked_format = "table"
        super().__post_init__()

    @property
    def written(self) -> dict[str, Path | None]:
        """The files to write, by the option that names them."""
        return {**super().written, "--plot": self.plot}

    @property
    def selects(self) -> bool:
        """Whether --where, --sort or --top chooses the rows that are shown."""
        return bool(self.where) or self.sort is not None or self.top is not None


def options_by_name(command: Any) -> dict[str, Any]:
    """The options of a command by each of their names."""
    return {
        name: parameter
        for parameter in command.params
        for name in (*parameter.opts, *parameter.secondary_opts)
        if name.startswith("-")
    }


def written_again(ctx: typer.Context, without: Callable[[Any], bool]) -> str:
    """The command line as typed, without the options for which ``without`` is true."""
    import shlex

    options = options_by_name(ctx.command)
    typed, kept = iter(ctx.obj.typed), ["dscalc"]
    for word in typed:
        name, equals, _ = word.partition("=")
        option = options.get(name) or (None if word[:2] == "--" else options.get(word[:2]))
        if option is None or not without(option):
            kept.append(word)
        elif not getattr(option, "is_flag", False) and not equals and word in options:
            next(typed, None)  # its value
    return shlex.join(kept)


def is_about_output(option: Any) -> bool:
    """Whether the option says how to show and check an answer."""
    return getattr(option, "rich_help_panel", None) in _OF_ALL


def options_given(ctx: typer.Context) -> list[str]:
    """The options of a command line that differ from their defaults."""
    return [
        max(one.opts, key=len)
        for one in ctx.command.params
        if one.param_type_name == "option"
        and (value := ctx.params.get(one.name or "")) not in (None, [], ())
        and value != one.get_default(ctx)
    ]


def with_groups(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command one option per field of the dataclasses that it takes.

    Typer reads the signature of a function, and knows no groups of options.
    """
    groups: dict[str, list[Any]] = {}
    own: list[Parameter] = []  # first in the help
    shared: list[Parameter] = []
    parameters = signature(command).parameters
    for name, parameter in parameters.items():
        kind = parameter.annotation
        if kind is Questions:
            groups[name] = list(slices.options(command.__name__))
        elif is_dataclass(kind):
            groups[name] = [kind]
        else:
            own.append(parameter.replace(kind=Parameter.KEYWORD_ONLY))
        shared += [_parameter(each) for group in groups.get(name, ()) for each in fields(group)]

    @wraps(command)
    def flat(**given: Any) -> Any:
        for name, kinds in groups.items():
            made = [_filled(kind, given) for kind in kinds]
            several = parameters[name].annotation is Questions
            given[name] = Questions(made) if several else made[0]
        return command(**given)

    flat.__signature__ = Signature([*own, *shared])  # type: ignore[attr-defined]
    return flat


def _filled(kind: Any, given: dict[str, Any]) -> Any:
    """A group of options with the values in ``given``, which it removes there."""
    options = kind.__new__(kind)  # without an __init__: to define one slows every start
    vars(options).update({option.name: given.pop(option.name) for option in fields(kind)})
    if hasattr(options, "__post_init__"):
        options.__post_init__()
    return options


def _parameter(option: Any) -> Parameter:
    default = option.default
    if option.default_factory is not MISSING:
        default = option.default_factory()
    return Parameter(
        option.name,
        Parameter.KEYWORD_ONLY,
        default=Parameter.empty if default is MISSING else default,
        annotation=option.type,
    )


class SectionedCommand(TyperCommand):
    """A command whose help lists options in sections and cuts no name short."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write one section per panel."""
        sections: dict[str, list[tuple[str, str]]] = {
            heading: [] for heading in ("Arguments", "Model", "Layer", "Measurement", *_OF_ALL)
        }
        for parameter in self.get_params(ctx):
            entry = parameter.get_help_record(ctx)
            panel = getattr(parameter, "rich_help_panel", None)
            heading = "Arguments" if parameter.param_type_name == "argument" else panel or "Output"
            if entry:
                name, text = entry
                sections[heading].append((name, text.removesuffix("  [required]")))
        for heading, entries in sections.items():
            if entries:
                with formatter.section(heading):
                    formatter.write_dl(entries, col_max=27)
        again = [one.opts[0] for one in ctx.command.params if getattr(one, "multiple", False)]
        if again:
            with formatter.indentation():
                formatter.write_text(f"Repeatable: {', '.join(again)}.")

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Name the arguments without typer's braces."""
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]
