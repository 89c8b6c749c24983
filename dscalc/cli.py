"""The command line: parse -> call -> show -> exit code."""

import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Annotated, Any, assert_never

import typer
from typer.core import TyperGroup

from dscalc import __version__
from dscalc.assertion import check_field
from dscalc.comparison import Comparison, Counts
from dscalc.errors import CrosscheckError, DscalcError
from dscalc.grid import Grid
from dscalc.options import LayerOptions, OutputOptions, grouped
from dscalc.record import Record, names, record, total
from dscalc.report import sheet, text
from dscalc.report.sheet import Sheet
from dscalc.verdict import Verdict

_MOST_ROWS = 10_000  # of a format that holds all rows at once
_UsageError = typer.BadParameter.__bases__[0]  # typer has no public name for it

_EPILOG = """\
[bold]Exit codes[/]

0  answered, and every check holds

1  the answer is no: an assertion fails, or a cross-check differs

2  no answer: usage, bad input, torch or fvcore missing, a size torch refuses

130  interrupted
"""
_COMPARE_EPILOG = """\
[bold]Examples[/]

dscalc 3 64 3 224

dscalc 512 512 3 14 --get mac_ratio_exact

dscalc 256 256 3x5 56 --stride 2 --padding 1 --bias -f json

dscalc 64 32:1024:x2 3,5,7 14 -f csv -o sweep.csv

dscalc 512 512 3 14 --assert 'separable_macs <= 60M' --assert 'mac_ratio < 1/8'
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
    rich_markup_mode="rich",
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


@app.callback(epilog=_EPILOG)
def group(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_print_version, help="Show the version."),
    ] = False,
) -> None:
    """What a convolution costs, and what it costs as a depthwise separable convolution.

    [bold]dscalc IC OC F D[/] is short for [bold]dscalc compare IC OC F D[/].
    """


@app.command(epilog=_COMPARE_EPILOG)
@grouped
def compare(
    ic: Annotated[str, typer.Argument(metavar="IC", help="Input channels.")],
    oc: Annotated[str, typer.Argument(metavar="OC", help="Output channels.")],
    f: Annotated[str, typer.Argument(metavar="F", help="Filter size: 3, or 3x5.")],
    d: Annotated[str, typer.Argument(metavar="D", help="Feature map size: 14, or 224x160.")],
    layer: LayerOptions,
    output: OutputOptions,
) -> int:
    """Compare a standard convolution with its depthwise separable replacement.

    IC, OC, F and D each take a value, a list 32,64,128, a range 32:512:32 or a geometric range
    32:1024:x2. More than one value makes a grid: a row for each combination.
    """
    layers = Grid(ic, oc, f, d, int(layer.dims), **layer.parsed())
    for field in output.get:
        check_field(field, names(Record._fields, output.unit))
    verdict = Verdict(output.assertions, output.unit, quiet=output.quiet)
    verify = output.verify
    if verify is None:
        verify = layers.count == 1 and not output.get
    if layers.count == 1:
        _show_layer(next(iter(layers)), verify, verdict, output)
    else:
        _show_grid(layers, verify, verdict, output)
    verdict.conclude()
    return verdict.exit_code


def _show_layer(layer: Comparison, verify: bool, verdict: Verdict, output: OutputOptions) -> None:
    count = _counter(verdict) if verify else _uncounted
    live = output.format == "table" and not output.file and not output.get and sys.stdout.isatty()
    if verify and live:
        from dscalc.report import table

        first = sheet.one_layer(layer, output.unit, pending=True)
        with table.live(first, sys.stdout) as replace:
            counted = count(layer)
            replace(sheet.one_layer(layer, output.unit, counted))
        row = record(layer, counted)
    else:
        counted = count(layer)
        row = record(layer, counted)
        _write([row], lambda _: sheet.one_layer(layer, output.unit, counted), output)
    verdict.crosscheck(row)
    verdict.check(row)


def _show_grid(layers: Grid, verify: bool, verdict: Verdict, output: OutputOptions) -> None:
    if layers.count > _MOST_ROWS and output.format not in ("csv", "jsonl") and not output.get:
        raise DscalcError(
            f"{output.format} holds at most {_MOST_ROWS:,} rows, and this grid has "
            f"{layers.count:,}; use -f csv or -f jsonl"
        )
    count = _counter(verdict) if verify else _uncounted

    def rows() -> Iterator[Record]:
        for layer in layers:
            row = record(layer, count(layer))
            verdict.crosscheck(row, sheet.title(layer))
            verdict.check(row, sheet.title(layer))
            yield row

    common = ", ".join(["layers", *sheet.options(next(iter(layers)))])
    _write(rows(), lambda held: sheet.grid(common, held, output.unit), output)


def _counter(verdict: Verdict) -> Callable[[Comparison], Counts | None]:
    """The cross-check; where it cannot count, it says so and the formulas stand alone."""
    broken = False

    @lru_cache(maxsize=1024)  # layers come again in a grid or a network
    def count(layer: Comparison) -> Counts | None:
        nonlocal broken
        if broken:
            return None
        try:
            from dscalc.pytorch.crosscheck import crosscheck
        except Exception as error:  # a broken installation can raise anything
            broken = True
            verdict.refuse(
                f"the cross-check needs torch and fvcore, and importing them failed ({error}); "
                "install them again, or add --no-verify"
            )
            return None
        try:
            return crosscheck(layer)
        except CrosscheckError as error:
            verdict.refuse(f"{error}; add --no-verify to do without")
            return None

    return count


def _uncounted(layer: Comparison) -> None:
    return None


def _write(
    rows: Iterable[Record], to_sheet: Callable[[list[Record]], Sheet], output: OutputOptions
) -> None:
    """Write the report in its format to its place."""
    report = _report(rows, to_sheet, output)
    if output.file is None:
        sys.stdout.writelines(report)
        return
    from dscalc.report.file import replacing

    with (
        replacing(output.file) as path,
        path.open("w", encoding="utf-8", newline="") as stream,
    ):
        stream.writelines(report)


def _report(
    rows: Iterable[Record], to_sheet: Callable[[list[Record]], Sheet], output: OutputOptions
) -> Iterable[str]:
    if output.get:
        return text.fields(rows, output.get, output.unit)
    match output.format:
        case "csv":
            return text.csv(rows, output.unit)
        case "jsonl":
            return text.jsonl(rows, output.unit)
        case "json":
            held = list(rows)
            return text.json(held, total(held), output.unit)
        case "markdown":
            return text.markdown(to_sheet(list(rows)))
        case "table":
            from dscalc.report import table

            return table.render(to_sheet(list(rows)), None if output.file else sys.stdout)
        case "svg":
            from dscalc.report import table

            return table.svg(to_sheet(list(rows)))
        case _:
            assert_never(output.format)
