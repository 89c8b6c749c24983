"""Write a report in its format to stdout, or whole into a file or not at all."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from dscalc.commands.options import OutputOptions, ReportOptions, written_again
from dscalc.errors import DscalcError
from dscalc.report import text
from dscalc.report.file import kind_of_picture, replacing, to_stdout
from dscalc.report.report import Report

if TYPE_CHECKING:  # few runs need them
    from dscalc.report.sheet import Sheet


@contextmanager
def working(output: OutputOptions, what: str) -> Iterator[None]:
    """Show on a terminal that slow work goes on."""
    if output.quiet or not sys.stderr.isatty():
        yield
        return
    from dscalc.report import table

    with table.status(what, sys.stderr):
        yield


@contextmanager
def drawn(report: Report, file: Path | None) -> Iterator[None]:
    """Draw a report that has rows; the file appears once the block has succeeded.

    Raises:
        DscalcError: there is no matplotlib, or the report has too much for a plot.
    """
    if not file or not report.rows:
        yield
        return
    with replacing(file) as path:
        try:
            report.draw(path, kind_of_picture(file))
        except ImportError as error:
            raise DscalcError(
                f"--plot needs matplotlib ({error}); install it with pip install matplotlib"
            ) from error
        with to_stdout():  # its errors are not about the plot
            yield


def write(report: Report, output: ReportOptions, ctx: typer.Context) -> None:
    """Write a report in its format."""
    if sentence := report.bare():
        write_pieces([sentence], output)
    elif output.format == "json":
        write_pieces(report.json(), output)
    elif output.format in ("csv", "jsonl"):
        stdout: Any = sys.stdout
        stdout.reconfigure(encoding="utf-8")  # names are the same in any locale
        write_pieces((text.csv if output.format == "csv" else text.jsonl)(report), output)
    else:
        write_pieces(_sheet_pieces(report.sheet(), output, ctx), output)


def write_pieces(pieces: Iterable[str], output: ReportOptions) -> None:
    """Write text to stdout, or whole into the file or not at all."""
    if output.file is None:
        sys.stdout.writelines(pieces)
        return
    with (
        replacing(output.file) as path,
        path.open("w", encoding="utf-8", newline="") as stream,
    ):
        stream.writelines(pieces)


def _sheet_pieces(shown: "Sheet", output: ReportOptions, ctx: typer.Context) -> Iterable[str]:
    """A sheet in one of the formats for people."""
    if output.format == "markdown":
        if output.file is None and not sys.stdout.encoding.lower().startswith("utf"):
            from dscalc.report.sheet import in_ascii

            shown = in_ascii(shown)
        return text.markdown(shown)
    from dscalc.report import table

    if output.format == "table":
        return table.render(shown, None if output.file else sys.stdout)
    says_where = ("asked_format", "file")
    return table.svg(shown, written_again(ctx, lambda option: option.name in says_where))
