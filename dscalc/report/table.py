"""Sheets -> the terminal, in colour and at any width, and SVG. The only importer of rich."""

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from html import escape
from io import StringIO
from typing import TextIO

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from dscalc.core.row import Row
from dscalc.report.layout import Layout, fitted
from dscalc.report.report import Report
from dscalc.report.sentences import DIFFERENT, PENDING, SAME, wrapped
from dscalc.report.sheet import Cell, Column, Sheet, in_ascii
from dscalc.show import printable

_STYLES = {SAME: "green", DIFFERENT: "bold red", PENDING: "dim"}
_RULE, _ASCII_RULE = "─", "-"
_ROOMY = 100_000  # columns: wider than any table
_ASCII_MARK = "..."
_PICTURE = 80  # columns of sentences in a picture
# Of a picture on a light and on a dark page: background, foreground, and from rich's eight colours
# the red and green of marks. The heads of columns are dimmed and keep a contrast of 4.5:1.
_LIGHT, _DARK = (
    TerminalTheme(background, foreground, [background, red, green, *[foreground] * 5])
    for background, foreground, red, green in (
        ((255, 255, 255), (24, 24, 27), (180, 30, 20), (20, 110, 40)),
        ((24, 24, 27), (245, 245, 245), (255, 120, 110), (120, 210, 130)),
    )
)

# rich's own template loads a web font; a picture in a README must stand alone.
_SVG = """\
<svg class="{unique_id}" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{
  font-family: "Fira Code", Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: {char_height}px;
  line-height: {line_height}px;
}}
.{unique_id}-title {{ font: bold 18px sans-serif; }}
.{unique_id} > rect {{ stroke: #808080; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix" xml:space="preserve">
{matrix}
</g>
</g>
</svg>
"""

# After the other rules; a program that does not know such a query shows the light picture.
_SVG_IN_DARK = """\
@media (prefers-color-scheme: dark) {{
.{unique_id} > rect {{ fill: #18181b; }}
.{unique_id}-title {{ fill: #f5f5f5; }}
{styles}
}}
"""


def render(sheet: Sheet, stream: TextIO | None = None) -> str:
    """A sheet as the stream shows it: in colour on a terminal, plain without a stream.

    Where its table is wider than the terminal, columns are left out, module paths shortened,
    numbers rounded, as a line says, and then it is laid out vertically; a number is never broken.
    """
    console = _console(stream)
    with console.capture() as captured:
        console.print(_laid_out(sheet, console), crop=False)
    shown = captured.get()
    if console.is_terminal:
        return shown
    return "".join(f"{line.rstrip()}\n" for line in shown.splitlines())


@contextmanager
def live(first: Sheet, stream: TextIO) -> Iterator[Callable[[Sheet], None]]:
    """Show a sheet on a terminal at once, and let the caller replace it in place.

    On a terminal that is too low for that, only the last sheet is shown.
    """
    from rich.live import Live

    console = _console(stream)
    height = len(console.render_lines(_laid_out(first, console)))
    if height >= console.height or console.is_dumb_terminal:
        yield lambda sheet: console.print(_laid_out(sheet, console), crop=False)
        return
    with Live(
        _laid_out(first, console),
        console=console,
        auto_refresh=False,
        redirect_stdout=False,
        redirect_stderr=False,
        vertical_overflow="visible",
    ) as display:
        yield lambda sheet: display.update(_laid_out(sheet, console), refresh=True)


def progress(report: Report, stream: TextIO, doing: str) -> Iterator[Row]:
    """The rows of a report, with a bar on a terminal that vanishes after the last one."""
    from rich.progress import Progress

    done = 0
    with Progress(console=_console(stream), transient=True) as bar:
        task = bar.add_task(doing, total=report.count)
        report.progress = lambda more: bar.update(task, completed=done + more)
        for done, row in enumerate(report.rows, 1):  # progress reads it
            yield row
            bar.update(task, completed=done)


def status(what: str, stream: TextIO) -> AbstractContextManager[object]:
    """Show that something goes on, on a terminal, until it is done."""
    return _console(stream).status(what)


def svg(sheet: Sheet, command: str) -> str:
    """The table as a picture, as wide as it needs to be, below the command that makes it.

    It is light or dark, as its reader's page is.
    """
    console = Console(
        file=StringIO(), record=True, force_terminal=True, color_system="truecolor", width=_ROOMY
    )
    prompt = _unwrapped(Text(f"$ {printable(command)}\n", "bold"))
    roomy = fitted(sheet, _ROOMY, cell_len, PENDING)
    table = console.measure(_table(sheet, roomy, _RULE)).maximum if roomy else 0
    console.width = max(table, _PICTURE)
    content = Group(prompt, _laid_out(sheet, console))
    # The last line would be cut short at its foot, and the last column at its right.
    console.width = max(console.measure(content).maximum, prompt.cell_len) + 1
    console.print(content, "", crop=False)
    dark = console.export_svg(title="dscalc", code_format=_SVG_IN_DARK, theme=_DARK, clear=False)
    picture = console.export_svg(title="dscalc", code_format=_SVG, theme=_LIGHT)
    title = f"\n<title>{escape(printable(sheet.title))}</title>\n<style>"
    picture = picture.replace("\n<style>", title, 1).replace("</style>", f"{dark}</style>", 1)
    return picture.encode("ascii", "xmlcharrefreplace").decode()  # for any encoding of stdout


def _console(stream: TextIO | None) -> Console:
    """A console on the stream; without one, a plain one in which everything fits."""
    if stream is None:
        console = Console(file=StringIO(), width=_ROOMY, force_terminal=False)
    else:
        console = Console(file=stream, markup=False, emoji=False, highlight=False)
        if stream.isatty() and "COLUMNS" not in os.environ:  # rich asks descriptors 0, 1 and 2
            console.width = os.get_terminal_size(stream.fileno()).columns
        console.width = console.width or 80  # where COLUMNS is 0
    return console


def _laid_out(sheet: Sheet, console: Console) -> RenderableType:
    rule, mark = _RULE, PENDING
    if console.options.ascii_only:
        sheet, rule, mark = in_ascii(sheet), _ASCII_RULE, _ASCII_MARK
    left_out: Sequence[Column] = ()
    found: Layout | None = None
    body: RenderableType = Text()
    if sheet.columns:
        found = fitted(sheet, console.width, cell_len, mark)
        body = _table(sheet, found, rule) if found else _vertical(sheet, console.width)
        left_out = found.left_out if found else [c for c in sheet.columns if c.role == "listed"]
    notes = [*sheet.lead, *_lines_of_listed(sheet, left_out)]
    notes += sheet.said(left_out, rounded=bool(found and found.rounded))
    return Group(
        _wrapped(sheet.title, console.width, "bold"),
        body,
        *(_wrapped(note, console.width) for note in notes),
    )


def _lines_of_listed(sheet: Sheet, left_out: Collection[Column]) -> list[str]:
    """The cells of a listed column that is left out, each once; then an empty line."""
    found = []
    for column, *cells in zip(sheet.columns, *sheet.rows, strict=True):
        if column.role == "listed" and column in left_out:
            named = zip(sheet.rows, cells, strict=True)
            lines = [f"{row[0]}: {cell}" for row, cell in named if cell]
            found += [*dict.fromkeys(lines), ""]
    return found


def _table(sheet: Sheet, layout: Layout, rule: str) -> Group:
    """The table line by line: rich's own takes as long as the audit of a model with many rows."""
    heads = [[""] * (2 - len(lines)) + lines for lines in map(str.splitlines, layout.heads)]
    above = [[*line] for line in zip(*(head or ["", ""] for head in heads), strict=True)]
    above = [line for line in above if any(line)] or [[""] * len(heads)]
    summed_up = [layout.result] if layout.result and _says_more(layout) else []
    body = [*above, *layout.rows, *summed_up]
    widths = [max(map(cell_len, cells)) for cells in zip(*body, strict=True)]

    def joined(cells: Sequence[str]) -> str:
        shown = []
        for at, (cell, column) in enumerate(zip(cells, layout.columns, strict=True)):
            blank = " " * (widths[at] - cell_len(cell))
            left = not at or column.role in ("kind", "bar")
            shown.append(f"{cell}{blank}" if left else f"{blank}{cell}")
        return "  ".join(shown)

    lines = [Text(), *(Text(joined(line), "dim") for line in above)]
    lines.append(Text(rule * (sum(widths) + 2 * (len(widths) - 1)), "dim"))
    for number, line in enumerate(layout.rows):
        shown = _coloured(joined(line))
        if number in sheet.modules:
            shown.stylize("bold", 0, len(line[0]))
        lines.append(shown)
    for line in summed_up:
        shown = _coloured(joined(line))
        shown.style = "bold"
        lines.append(shown)
    return Group(*map(_unwrapped, [*lines, Text()]))


def _says_more(layout: Layout) -> bool:
    """Whether more of the row that sums up is shown than its name."""
    roles = [column.role for column in layout.columns]
    cells = zip(layout.result or (), roles, strict=True)
    return any(cell and role != "name" for cell, role in cells)


def _vertical(sheet: Sheet, width: int) -> Text:
    """One line a cell, under the name of its row; nothing for what does not apply, and no bars."""
    rows = [*sheet.rows, sheet.result] if sheet.result else sheet.rows
    cells = [
        [
            (column.head, str(cell))
            for column, cell in zip(sheet.columns, row, strict=True)
            if cell not in ("", "-") and column.role in ("", "kind", "asked")
        ]
        for row in rows
    ]
    widest = max(len(head) + len(cell) for row in cells for head, cell in row) + 2
    lines: list[Text] = []
    for row, under in zip(rows, cells, strict=True):
        lines += [Text(), _wrapped(_row_title(sheet, row), width, "bold")]
        lines += [_coloured(f"  {head}{cell:>{widest - len(head)}}") for head, cell in under]
    return _unwrapped(Text("\n").join([*lines, Text()]))


def _row_title(sheet: Sheet, row: Sequence[Cell]) -> str:
    """The name of a row, of one or several cells: 64 -> 32, F 3x3, D 14x14."""
    cells = zip(sheet.columns, map(str, row), strict=True)
    names = [(column.head, cell) for column, cell in cells if column.role == "name"]
    (head, first), *more = names
    first = f"{head} {first}" if head in ("F", "D") else first
    return ", ".join([first, *(f"{head} {cell}" for head, cell in more if cell)])


def _coloured(cell: str) -> Text:
    text = Text(cell)
    for mark, style in _STYLES.items():
        text.highlight_words([mark], style)
    return text


def _wrapped(sentence: str, width: int, style: str = "") -> Text:
    text = _unwrapped(_coloured("\n".join(wrapped(sentence, width))))
    text.stylize(style)
    return text


def _unwrapped(text: Text) -> Text:
    """The text as it is, even where it is wider than the terminal."""
    text.no_wrap, text.overflow = True, "ignore"
    return text
