"""The command line: parse -> call -> show -> exit code."""

import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, assert_never

import typer
from typer.core import TyperGroup

from dscalc import __version__, parse
from dscalc.assertion import check_field
from dscalc.comparison import Comparison, Counts
from dscalc.errors import CrosscheckError, DscalcError
from dscalc.grid import Grid
from dscalc.network import Layer, opened, read_network, shipped
from dscalc.options import (
    LayerOptions,
    OutputOptions,
    ScaleOptions,
    SectionedCommand,
    grouped,
)
from dscalc.record import (
    MODEL_FIELDS,
    Model,
    Record,
    Value,
    layer_record,
    model_values,
    names,
    record,
    total,
    values,
)
from dscalc.report import sheet, text
from dscalc.report.sheet import Sheet
from dscalc.verdict import Verdict

_MOST_ROWS = 10_000  # of a format that holds all rows at once
_UsageError = typer.BadParameter.__bases__[0]  # typer has no public name for it

_EXIT_CODES = """\b
Exit codes:
  0    answered, and every check holds
  1    the answer is no: an assertion fails, or a cross-check differs
  2    no answer: usage, bad input, torch or fvcore missing, sizes torch refuses
  130  interrupted
"""
_Count = Callable[[Comparison | Layer], Counts | None]
_AnyLayer = TypeVar("_AnyLayer")

_COMPARE_EXAMPLES = """\b
Examples:
  dscalc 3 64 3 224
  dscalc 512 512 3 14 --get mac_ratio_exact
  dscalc 256 256 3x5 56 --stride 2 --padding 1 --bias -f json
  dscalc 64 32:1024:x2 3,5,7 14 -f csv -o sweep.csv
  dscalc 512 512 3 14 --assert 'separable_macs <= 60M'
"""
_NETWORK_EXAMPLES = """\\b
Examples:
  dscalc network mobilenet_v1
  dscalc network mobilenet_v1 --width-multiplier 0.5 --input-size 160
  dscalc network mynet.csv --assert 'separable_macs <= 600M'
  cat mynet.jsonl | dscalc network - -f csv
  dscalc network --list
"""


_MODEL_EXAMPLES = """\\b
Examples:
  dscalc model mymodels.py:Net --input 3x224x224
  dscalc model mypackage.models:resnet50 --input 3x224x224 --kwargs '{"classes": 10}'
  dscalc model torchvision.models:resnet50 --input 3x224x224 --sort standard_macs --top 10
  dscalc model mymodels.py:Net --input 3x224x224 --assert 'model_macs <= 600M'
"""


class _CompareByDefault(TyperGroup):
    """``dscalc 3 64 3 224`` is ``dscalc compare 3 64 3 224``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        own = {option for parameter in self.get_params(ctx) for option in parameter.opts}
        if args and args[0] not in own and not args[0][:1].isalpha():
            args = ["compare", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_CompareByDefault,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,  # its panels cut long option names short
    pretty_exceptions_enable=False,
)


def main() -> int:
    """Run the command line and return its exit code."""
    if hasattr(signal, "SIGPIPE"):  # die of a closed pipe in silence, like any filter
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    args = sys.argv[1:]
    try:
        code = app(args or ["--help"], standalone_mode=False)
        sys.stdout.flush()
        return code if args else 2
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if "-v" in args or "--verbose" in args:
            import traceback

            traceback.print_exc()
        message = "".join(c if c.isprintable() else repr(c)[1:-1] for c in _explained(error, args))
        sys.stderr.write(f"error: {message}\n")
        return 2


def _explained(error: Exception, args: list[str]) -> str:
    if isinstance(error, DscalcError):
        return str(error)
    if isinstance(error, _UsageError):
        message: str = error.format_message()  # type: ignore[attr-defined]
        negative = next((arg for arg in args if arg[:1] == "-" and arg[1:2].isdigit()), None)
        if negative and message.startswith("No such option: -"):
            return f"IC, OC, F and D must be at least 1, got {negative}"
        command = error.ctx.command_path if error.ctx else "dscalc"  # type: ignore[attr-defined]
        return f"{message[0].lower()}{message[1:].rstrip('.')}; see {command} --help"
    if isinstance(error, OSError):
        return f"cannot write the report: {error.strerror or error}"
    return f"{type(error).__name__}: {error}; this is a fault in dscalc, -v shows where"


def _print_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"dscalc {__version__}\n")
        raise typer.Exit


@app.callback(epilog=_EXIT_CODES)
def group(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_print_version, help="Show the version."),
    ] = False,
) -> None:
    """What a convolution costs, and what it costs as a depthwise separable convolution.

    dscalc IC OC F D is short for dscalc compare IC OC F D, as in dscalc 3 64 3 224:
    input channels, output channels, filter size, feature map size.
    """


@app.command(cls=SectionedCommand, epilog=f"{_COMPARE_EXAMPLES}\n{_EXIT_CODES}")
@grouped
def compare(
    ic: Annotated[str, typer.Argument(metavar="IC", help="Input channels.")],
    oc: Annotated[str, typer.Argument(metavar="OC", help="Output channels.")],
    f: Annotated[str, typer.Argument(metavar="F", help="Filter size: 3, or 3x5.")],
    d: Annotated[str, typer.Argument(metavar="D", help="Feature map size: 14, or 224x160.")],
    layer: LayerOptions,
    scale: ScaleOptions,
    output: OutputOptions,
) -> int:
    """Compare a standard convolution with its depthwise separable replacement.

    IC, OC, F and D each take a value, a list 32,64,128, a range 32:512:32 or a geometric range
    32:1024:x2. More than one value makes a grid: a row for each combination.
    """
    layers = Grid(ic, oc, f, d, **layer.parsed(), **scale.parsed())
    single = layers.count == 1
    if single and output.plot:
        raise DscalcError(
            "--plot needs a grid; give a list or a range, such as 32:1024:x2 for OC, or drop it"
        )
    verdict = _verdict(output, Record._fields)
    count = _counter(verdict, output, by_default=single)
    if single:
        _show_layer(next(iter(layers)), count, verdict, output)
    else:
        _show_grid(layers, count, verdict, output)
    return verdict.conclude()


def _show_layer(layer: Comparison, count: _Count, verdict: Verdict, output: OutputOptions) -> None:
    live = output.format == "table" and not output.file and not output.get and sys.stdout.isatty()
    if count is not _uncounted and live:
        from dscalc.report import table

        first = sheet.one_layer(layer, output.unit, pending=True)
        with table.live(first, sys.stdout) as replace:
            counted = count(layer)
            replace(sheet.one_layer(layer, output.unit, counted))
        row = record(layer, counted)
    else:
        counted = count(layer)
        row = record(layer, counted)
        _write(Answer([row], lambda _: sheet.one_layer(layer, output.unit, counted)), output)
    verdict.crosscheck(row)
    verdict.check(values(row, output.unit))


def _show_grid(layers: Grid, count: _Count, verdict: Verdict, output: OutputOptions) -> None:
    streamed = output.format in ("csv", "jsonl") or bool(output.get)
    if layers.count > _MOST_ROWS and (output.plot or not streamed):
        what = "--plot" if output.plot else output.format
        raise DscalcError(
            f"{what} holds at most {_MOST_ROWS:,} rows, and this grid has {layers.count:,}; "
            "use -f csv or -f jsonl alone"
        )

    def rows() -> Iterator[Record]:
        for layer in _watched(layers, layers.count, count, output):
            row = record(layer, count(layer))
            where = partial(sheet.title, layer)
            verdict.crosscheck(row, where)
            if output.assertions:
                verdict.check(values(row, output.unit), where)
            yield row

    common = ", ".join(["layers", *sheet.options(next(iter(layers)))])
    answer = Answer(rows(), lambda held: sheet.grid(common, held, output.unit))
    if output.plot:
        held = list(answer.rows)
        with _plotting(output.plot) as (plot, path, kind):
            plot.grid(held, path, kind)
        answer = answer._replace(rows=held)
    _write(answer, output)


def _print_networks(wanted: bool) -> None:
    if wanted:
        titles = shipped()
        width = max(map(len, titles))
        for name, title in titles.items():
            sys.stdout.write(f"{name:<{width}}  {title}\n")
        raise typer.Exit


@app.command(cls=SectionedCommand, epilog=f"{_NETWORK_EXAMPLES}\n{_EXIT_CODES}")
@grouped
def network(
    source: Annotated[
        str, typer.Argument(metavar="NAME|FILE|-", help="A shipped network, a file, or stdin.")
    ],
    scale: ScaleOptions,
    output: OutputOptions,
    input_size: Annotated[
        str | None,
        typer.Option("--input-size", metavar="N|HxW", help="Replaces the first row's input size."),
    ] = None,
    list_: Annotated[
        bool,
        typer.Option(
            "--list", is_eager=True, callback=_print_networks, help="Name the shipped networks."
        ),
    ] = False,
) -> int:
    """Add up a list of layers, as standard and as depthwise separable convolutions.

    The list is CSV with a header row, or JSON Lines. Its columns are name, kind, in_channels,
    out_channels, kernel_size, stride, padding, dilation, groups, depth_multiplier, bias,
    input_size, from, repeat, rounding and expansion; kind is conv, separable, depthwise, linear,
    pool or norm. A row reads from the one before, or from the row that "from" names.

    --get and --assert hold the total.
    """
    verdict = _verdict(output, Record._fields)
    with opened(source, sys.stdin.buffer) as (stream, name):
        layers = read_network(
            stream,
            name,
            input_size=parse.size(input_size, "input size") if input_size else None,
            **scale.parsed(),
        )
    count = _counter(verdict, output, by_default=True)
    watched = _watched(layers, len(layers), count, output)
    rows = [layer_record(layer, count(layer)) for layer in watched]
    sums = total(rows)
    known = values(sums, output.unit)
    title = shipped().get(source, name)
    if output.plot:
        with _plotting(output.plot) as (plot, path, kind):
            sides = ("as standard convolutions", "as it is")
            plot.network(rows, path, kind, output.unit, title, sides)
    _write(Answer(rows, lambda _: sheet.network(title, rows, sums, output.unit), [known]), output)
    for row in rows:
        verdict.crosscheck(row, partial(str, row.name))
    verdict.check(known)
    return verdict.conclude()


@app.command(cls=SectionedCommand, epilog=f"{_MODEL_EXAMPLES}\n{_EXIT_CODES}")
@grouped
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
        Literal["float32", "float64", "float16", "bfloat16", "int64"],
        typer.Option("--dtype", help="Of the inputs.", rich_help_panel="Model"),
    ] = "float32",
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

    --get and --assert hold the total, and know the whole model as model_macs, model_params,
    model_separable_macs and model_separable_params.
    """
    verdict = _verdict(output, (*Record._fields, *MODEL_FIELDS))
    if sort is not None:
        check_field(sort, names(Record._fields, output.unit))
    most = parse.whole(top, "--top") if top is not None else None
    shapes = [parse.shape(shape, "--input") for shape in inputs]
    samples = parse.whole(batch, "--batch")
    arguments = parse.keywords(kwargs, "--kwargs")
    with _torch():
        from dscalc.pytorch.audit import audit, make_input
        from dscalc.pytorch.load import load_model
    with _working(output, f"running {target}"):
        tensors = [make_input((samples, *shape), dtype) for shape in shapes]
        loaded = load_model(target, arguments, dtype)
        choose = partial(audit, loaded, *tensors, only=only or None, exclude=exclude or None)
        try:
            found = choose(verify=output.verify is not False)
        except CrosscheckError as error:
            verdict.refuse(f"{error}; add --no-verify to do without")
            found = choose(verify=False)
    rows, sums = found.records, found.total
    if sort is not None:
        rows = sorted(rows, key=lambda row: _sortable(values(row, output.unit)[sort]), reverse=True)
    shown = rows[:most]
    hidden = len(rows) - len(shown)
    known = values(sums, output.unit) | model_values(found.model, output.unit)
    if output.plot:
        with _plotting(output.plot) as (plot, path, kind):
            sides = ("as it is", "with separable convolutions")
            plot.network(shown, path, kind, output.unit, target, sides)
    _write(
        Answer(
            shown,
            lambda _: sheet.model(target, shown, sums, found.model, output.unit, hidden),
            [known],
            sums,
            found.model,
        ),
        output,
    )
    for row in found.records:
        verdict.crosscheck(row, partial(str, row.name))
    if found.crosscheck == "mismatch" and sums.crosscheck != "mismatch":
        verdict.differs("the rest of the model changes when its convolutions are replaced")
    verdict.check(known)
    return verdict.conclude()


def _sortable(value: Value) -> tuple[bool, Any]:
    """None last, whatever the others are."""
    return value is not None, value if value is not None else 0


def _verdict(output: OutputOptions, fields: Sequence[str]) -> Verdict:
    known = names(fields, output.unit)
    for field in output.get:
        check_field(field, known)
    return Verdict(output.assertions, known, quiet=output.quiet)


@contextmanager
def _torch() -> Iterator[None]:
    """Say in one line what is wrong where torch or fvcore cannot be imported."""
    try:
        yield
    except Exception as error:  # a broken installation can raise anything
        raise DscalcError(
            f"this needs torch and fvcore, and importing them failed ({error}); "
            "install them again: pip install torch fvcore"
        ) from error


@contextmanager
def _working(output: OutputOptions, what: str) -> Iterator[None]:
    """Show on a terminal that something slow goes on."""
    if output.quiet or not sys.stderr.isatty():
        yield
        return
    from dscalc.report import table

    with table.status(what, sys.stderr):
        yield


@contextmanager
def _plotting(file: Path) -> Iterator[tuple[ModuleType, Path, str]]:
    """What draws, where to, and what kind of picture; the file is written whole or not at all."""
    kind = file.suffix.lower().removeprefix(".")
    if kind not in ("png", "svg", "pdf"):
        raise DscalcError(f"--plot needs a file that ends in .png, .svg or .pdf, got {file}")
    try:
        from dscalc.report import plot
    except ImportError as error:
        raise DscalcError(
            f"--plot needs matplotlib ({error}); install it with pip install 'dscalc[plot]'"
        ) from error
    from dscalc.report.file import replacing

    with replacing(file) as path:
        yield plot, path, kind


def _counter(verdict: Verdict, output: OutputOptions, *, by_default: bool) -> _Count:
    """The cross-check; where it cannot count, it says so and the formulas stand alone."""
    if not (output.verify if output.verify is not None else by_default and not output.get):
        return _uncounted
    broken = False

    @lru_cache(maxsize=1024)  # the same layer comes again in a grid or a network
    def count(layer: Comparison | Layer) -> Counts | None:
        nonlocal broken
        if broken:
            return None
        try:
            with _torch():
                from dscalc.pytorch.crosscheck import crosscheck, versions
        except DscalcError as error:
            broken = True
            verdict.refuse(f"{error}; or add --no-verify")
            return None
        try:
            counted = crosscheck(layer)
            if output.verbose:
                sys.stderr.write(f"counted by {versions()}: {counted}\n")
            return counted
        except CrosscheckError as error:
            verdict.refuse(f"{error}; add --no-verify to do without")
            return None

    def count_once(layer: Comparison | Layer) -> Counts | None:
        return count(layer.comparison or layer if isinstance(layer, Layer) else layer)

    return count_once


def _watched(
    layers: Iterable[_AnyLayer], count: int, counter: _Count, output: OutputOptions
) -> Iterable[_AnyLayer]:
    """The layers, with a progress bar on a terminal while they are cross-checked."""
    streamed = output.file is None and sys.stdout.isatty() and output.format in ("csv", "jsonl")
    if counter is _uncounted or output.quiet or streamed or not sys.stderr.isatty():
        return layers
    from dscalc.report import table

    return table.progress(layers, count, sys.stderr)


def _uncounted(layer: Comparison | Layer) -> None:
    return None


class Answer(NamedTuple):
    """What there is to write, whatever the format.

    ``known`` are the fields that --get reads, where they are not those of the rows.
    """

    rows: Iterable[Record]
    to_sheet: Callable[[list[Record]], Sheet]
    known: Iterable[Mapping[str, Value]] | None = None
    total: Record | None = None
    model: Model | None = None


def _write(answer: Answer, output: OutputOptions) -> None:
    """Write the report in its format to its place."""
    report = _report(answer, output)
    if output.file is None:
        sys.stdout.writelines(report)
        return
    from dscalc.report.file import replacing

    with (
        replacing(output.file) as path,
        path.open("w", encoding="utf-8", newline="") as stream,
    ):
        stream.writelines(report)


def _report(answer: Answer, output: OutputOptions) -> Iterable[str]:
    if output.get:
        known = answer.known or (values(row, output.unit) for row in answer.rows)
        return text.fields(known, output.get)
    match output.format:
        case "csv":
            return text.csv(answer.rows, output.unit)
        case "jsonl":
            return text.jsonl(answer.rows, output.unit)
        case "json":
            held = list(answer.rows)
            return text.json(held, answer.total or total(held), output.unit, answer.model)
        case "markdown":
            return text.markdown(answer.to_sheet(list(answer.rows)))
        case "table":
            from dscalc.report import table

            stream = None if output.file else sys.stdout
            return table.render(answer.to_sheet(list(answer.rows)), stream)
        case "svg":
            from dscalc.report import table

            return table.svg(answer.to_sheet(list(answer.rows)))
        case _:
            assert_never(output.format)
