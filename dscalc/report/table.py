"""Sheets -> the terminal, in colour and at any width, and SVG. The only importer of rich."""

import textwrap
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from html import escape
from io import StringIO
from typing import Literal, TextIO, TypeVar

from rich.box import SIMPLE_HEAD, Box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from dscalc.report.sentences import DIFFERENT, PENDING, SAME
from dscalc.report.sheet import LATE, Column, Sheet, in_ascii
from dscalc.show import printable

_Item = TypeVar("_Item")
_STYLES = {SAME: "green", DIFFERENT: "bold red", PENDING: "dim"}
_ASCII_HEAD = Box("    \n    \n -- \n" + "    \n" * 5, ascii=True)  # SIMPLE_HEAD in ASCII
_ROOMY = 100_000  # columns: wider than any table
_SHORTEST = 16  # characters of a module path that is shortened
_ASCII_MARK = "..."
_PICTURE = 80  # columns of sentences in a picture
# Of a picture, whatever the colour of its page: background, six hues, foreground. The heads of
# columns are dimmed and keep a contrast of 6:1.
_COLOURS = [(24, 24, 27), (255, 120, 110), (120, 210, 130), (230, 200, 110), (130, 170, 255),
          (210, 150, 240), (110, 210, 220), (245, 245, 245)]  # fmt: skip
_THEME = TerminalTheme(_COLOURS[0], _COLOURS[-1], _COLOURS)

# rich's own template loads a web font; a picture in a README must stand alone.
_SVG = """\
<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{
  font-family: "Fira Code", Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: {char_height}px;
  line-height: {line_height}px;
}}
.{unique_id}-title {{ font: bold 18px sans-serif; }}
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


def render(sheet: Sheet, stream: TextIO | None = None) -> str:
    """A sheet as the stream shows it: in colour on a terminal, plain without a stream.

    Where its table is wider than the terminal, columns are left out, module paths shortened, and
    then it is laid out vertically; a number is never shortened or broken.
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


def progress(items: Iterable[_Item], count: int, stream: TextIO, doing: str) -> Iterable[_Item]:
    """The items, with a bar on a terminal that vanishes after the last one."""
    from rich.progress import track

    return track(items, doing, count, console=_console(stream), transient=True)


def status(what: str, stream: TextIO) -> AbstractContextManager[object]:
    """Show that something goes on, on a terminal, until it is done."""
    return _console(stream).status(what)


def svg(sheet: Sheet, command: str) -> str:
    """The table as a picture, as wide as it needs to be, below the command that makes it."""
    console = Console(
        file=StringIO(), record=True, force_terminal=True, color_system="truecolor", width=_ROOMY
    )
    prompt = _unwrapped(Text(f"$ {printable(command)}\n", "bold"))
    table = console.measure(_table(sheet, (), SIMPLE_HEAD)).maximum
    console.width = max(table, _PICTURE)
    content = Group(prompt, _laid_out(sheet, console))
    console.width = console.measure(content).maximum
    console.print(content, "", crop=False)  # the last line would be cut short at its foot
    picture = console.export_svg(title="dscalc", code_format=_SVG, theme=_THEME)
    title = f"\n<title>{escape(printable(sheet.title))}</title>\n<style>"
    picture = picture.replace("\n<style>", title, 1)
    return picture.encode("ascii", "xmlcharrefreplace").decode()  # for any encoding of stdout


def _console(stream: TextIO | None) -> Console:
    """A console on the stream; without one, a plain one in which everything fits."""
    if stream is None:
        console = Console(file=StringIO(), width=_ROOMY, force_terminal=False)
    else:
        console = Console(file=stream, markup=False, emoji=False, highlight=False)
        console.width = console.width or 80  # where COLUMNS is 0
    return console


def _laid_out(sheet: Sheet, console: Console) -> RenderableType:
    box = SIMPLE_HEAD
    if console.options.ascii_only:
        sheet, box = in_ascii(sheet), _ASCII_HEAD
    body, left_out = _fitting(sheet, console, box) if sheet.columns else (Text(), [])
    notes = [*_lines_of_listed(sheet, left_out), *sheet.said(left_out)]
    names = [
        column.head.replace(",", " in")  # "time, us" in a list
        for column in sheet.columns
        if column in left_out and column.role not in ("bar", "listed")
    ]
    if names:
        notes.append(f"not shown at this width: {', '.join(names)}")
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


def _fitting(sheet: Sheet, console: Console, box: Box) -> tuple[RenderableType, Collection[Column]]:
    """The table with as few columns left out as it takes, and which; or one line a cell."""
    roomy = console.options.update_width(_ROOMY)

    def excess(table: RenderableType) -> int:
        return console.measure(table, options=roomy).maximum - console.width

    spare = sorted((column for column in sheet.columns if column.rank), key=lambda one: one.rank)
    early = [column for column in spare if column.rank < LATE]
    for without in [early[:count] for count in range(len(early) + 1)]:
        table = _table(sheet, without, box)
        if excess(table) <= 0:
            return table, without
    mark = _ASCII_MARK if console.options.ascii_only else PENDING
    for without in [early, spare] if len(early) < len(spare) else [early]:
        table = _table(sheet, without, box, broken=True)
        if sheet.paths and (by := excess(table)) > 0:
            table = _table(_with_shorter_paths(sheet, by, mark), without, box, broken=True)
        if excess(table) <= 0:
            return table, without
    return _vertical(sheet, console.width), [c for c in sheet.columns if c.role == "listed"]


def _with_shorter_paths(sheet: Sheet, by: int, mark: str) -> Sheet:
    """The sheet with its first column narrower by that much, if paths are long enough."""
    rows = [*sheet.rows, sheet.result or [""]]
    room = max(_SHORTEST, max(len(row[0]) for row in rows) - by)
    paths = _told_apart([row[0] for row in sheet.rows], room, mark)
    return replace(
        sheet, rows=[[path, *row[1:]] for path, row in zip(paths, sheet.rows, strict=True)]
    )


def _told_apart(paths: Sequence[str], room: int, mark: str) -> list[str]:
    """The paths shortened in the way that leaves the most of them different."""
    ways = (_without_parts, _in_short_parts, _in_initials)
    found = [[way(path, room, mark) for path in paths] for way in ways]
    return max(found, key=lambda shortened: len(set(shortened)))


def _without_parts(path: str, room: int, mark: str) -> str:
    """A module path without its middle: whole parts of it if they fit, its end first."""
    if len(path) <= room:
        return path
    head, tail, parts = "", "", path.split(".")
    for number in range(len(parts)):
        half = number // 2
        if number % 2:
            longer = ".".join(parts[: half + 1]) + ".", tail
        else:
            longer = head, "." + ".".join(parts[len(parts) - half - 1 :])
        if len(longer[0]) + len(mark) + len(longer[1]) > room:
            break
        head, tail = longer
    shortened = head + mark + tail  # unless parts are long, and too little of them is left
    return shortened if 4 * len(shortened) >= 3 * room else _cut(path, room, mark)


def _in_short_parts(path: str, room: int, mark: str) -> str:
    """A module path with all of its parts, the longest of them cut."""
    parts = path.split(".")
    for length in range(room, len(mark) + 1, -1):
        shortened = ".".join(_cut(part, length, mark) for part in parts)
        if len(shortened) <= room:
            return shortened
    return _cut(path, room, mark)


def _in_initials(path: str, room: int, mark: str) -> str:
    """A module path with as few of its first names as it takes as initials: b.l.1.conv.0.0."""
    parts = path.split(".")
    for number, part in enumerate(parts[:-1]):
        if len(".".join(parts)) <= room:
            break
        parts[number] = part if part.isdigit() else part[:1]
    return _cut(".".join(parts), room, mark)


def _cut(name: str, room: int, mark: str) -> str:
    tail = (room - len(mark)) // 2
    return name if len(name) <= room else name[: room - len(mark) - tail] + mark + name[-tail:]


def _table(
    sheet: Sheet, without: Collection[Column], box: Box, *, broken: bool = False
) -> RenderableType:
    """The table without some columns; if ``broken``, heads are two lines."""
    shown = [(at, column) for at, column in enumerate(sheet.columns) if column not in without]
    table = Table(
        box=box, show_edge=False, pad_edge=False, collapse_padding=True, header_style="dim"
    )
    for at, column in shown:
        head = "\n".join(column.head.rsplit(" ", 1)) if broken else column.head
        justify: Literal["left", "right"] = "left" if not at or column.role == "bar" else "right"
        table.add_column(head, justify=justify, no_wrap=True, vertical="bottom")
    for row in sheet.rows:
        table.add_row(*(_coloured(row[at]) for at, _ in shown))
    if sheet.result:
        said = [at for at, column in shown if column.role != "name" and sheet.result[at]]
        if said:  # not only its name is left
            table.add_row(*(_coloured(sheet.result[at]) for at, _ in shown), style="bold")
    return Padding(table, (1, 0, 1, 1), expand=False)


def _vertical(sheet: Sheet, width: int) -> Text:
    """One line a cell, under the name of its row; nothing for what does not apply, and no bars."""
    rows = [*sheet.rows, sheet.result] if sheet.result else sheet.rows
    cells = [
        [
            (column.head, cell)
            for column, cell in zip(sheet.columns, row, strict=True)
            if cell and not column.role
        ]
        for row in rows
    ]
    widest = max(len(head) + len(cell) for row in cells for head, cell in row) + 2
    lines: list[Text] = []
    for row, under in zip(rows, cells, strict=True):
        lines += [Text(), _wrapped(_row_title(sheet, row), width, "bold")]
        lines += [_coloured(f"  {head}{cell:>{widest - len(head)}}") for head, cell in under]
    return _unwrapped(Text("\n").join([*lines, Text()]))


def _row_title(sheet: Sheet, row: Sequence[str]) -> str:
    """The name of a row, of one or several cells: 64 -> 32, F 3x3, D 14x14."""
    names = [(c.head, cell) for c, cell in zip(sheet.columns, row, strict=True) if c.role == "name"]
    (head, first), *more = names
    first = f"{head} {first}" if head in ("F", "D") else first
    return ", ".join([first, *(f"{head} {cell}" for head, cell in more if cell)])


def _coloured(cell: str) -> Text:
    text = Text(cell)
    for mark, style in _STYLES.items():
        text.highlight_words([mark], style)
    return text


def _wrapped(sentence: str, width: int, style: str = "") -> Text:
    """Wrapped between words alone, so that no number is broken."""
    lines = textwrap.wrap(sentence, width, break_long_words=False, break_on_hyphens=False)
    text = _unwrapped(_coloured("\n".join(lines)))
    text.stylize(style)
    return text


def _unwrapped(text: Text) -> Text:
    """The text as it is, even where it is wider than the terminal."""
    text.no_wrap, text.overflow = True, "ignore"
    return text
