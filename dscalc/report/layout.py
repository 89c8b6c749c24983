"""Which columns of a sheet fit a terminal, and what gives way where they do not.

All widths are worked out from the lengths of cells; nothing is drawn to be measured.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from dscalc.report.sheet import LAST, LATE, Cell, Column, Number, Sheet

_BETWEEN = 2  # blanks between two columns
# How short names become: at first; once columns give way; once numbers do; at the end.
_SHORTEST = (24, 16, 12, 8)


class Layout(NamedTuple):
    """A table as it fits.

    Args:
        columns: those that are shown.
        heads: their heads, of one line or two.
        rows: their cells.
        result: the cells of the row that sums them up.
        left_out: the columns that are not shown.
        rounded: whether numbers have three digits.
    """

    columns: list[Column]
    heads: list[str]
    rows: list[list[str]]
    result: list[str] | None
    left_out: list[Column]
    rounded: bool


class _State(NamedTuple):
    """What has given way; columns are numbers."""

    without: frozenset[int] = frozenset()
    narrow: frozenset[int] = frozenset()
    broken: bool = False
    shortest: int = 0  # of names; 0 if they are not shortened
    rounded: bool = False


def fitted(sheet: Sheet, width: int, length: Callable[[str], int], mark: str) -> Layout | None:
    """The table within a width; None if it does not fit, whatever gives way.

    Args:
        sheet: the table.
        width: columns of the terminal.
        length: of a text, in columns of the terminal.
        mark: stands for what is cut out of a name.
    """
    return _Fitting(sheet, width, length, mark).layout()


class _Fitting:
    def __init__(self, sheet: Sheet, width: int, length: Callable[[str], int], mark: str) -> None:
        self._sheet, self._width, self._length, self._mark = sheet, width, length, mark
        lines = [*sheet.rows, *([sheet.result] if sheet.result else [])]
        self._cells = [[line[at] for line in lines] for at in range(len(sheet.columns))]
        self._widths: dict[tuple[int, bool, bool], int] = {}

    def layout(self) -> Layout | None:
        fits: tuple[_State, Sequence[str]] | None = None
        for state in self._states():
            names = self._names_within(state)
            if names is None:
                continue
            fits = fits or (state, names)
            if not self._sheet.flat or len(set(names)) == len(set(self._cells[0])):
                fits = state, names
                break
        if fits is None:
            return None
        state, names = fits
        return self._drawn(self._with_what_still_fits(state, names), names)

    def _states(self) -> Iterator[_State]:
        """What gives way, step by step."""
        columns = self._sheet.columns
        steps = [(c.rank, at, "without") for at, c in enumerate(columns) if c.rank]
        steps += [(c.narrow[0], at, "narrow") for at, c in enumerate(columns) if c.narrow]
        state = _State()
        yield state

        def after(least: int, most: int) -> Iterator[_State]:
            nonlocal state
            for rank, at, how in sorted(steps):
                if least <= rank < most:
                    state = state._replace(**{how: getattr(state, how) | {at}})
                    yield state

        yield from after(0, LATE)
        state = state._replace(broken=True, shortest=_SHORTEST[0])
        yield state
        state = state._replace(shortest=_SHORTEST[1])
        yield from after(LATE, LAST)
        if any(isinstance(cell, Number) for cells in self._cells for cell in cells):
            state = state._replace(shortest=_SHORTEST[2], rounded=True)
            yield state
            state = state._replace(shortest=_SHORTEST[3])
            yield from after(LAST, LAST + LATE)

    def _names_within(self, state: _State) -> Sequence[str] | None:
        """The cells of the first column, shortened if they must be; None if that is not enough."""
        names = [str(cell) for cell in self._cells[0]]
        excess = self._total(state) - self._width
        if excess <= 0:
            return names
        longest = max(map(self._length, names))
        if not self._sheet.paths or not state.shortest or longest - excess < state.shortest:
            return None
        return self._shortened(names, longest - excess)

    def _shortened(self, names: Sequence[str], room: int) -> list[str]:
        ways = _WAYS if self._sheet.flat else _WAYS[:1]
        found = [[_indented(way, name, room, self._mark) for name in names] for way in ways]
        return max(found, key=lambda shortened: len(set(shortened)))

    def _total(self, state: _State) -> int:
        shown = [at for at in range(len(self._cells)) if at not in state.without]
        widths = [max(self._head_width(at, state), self._width_of(at, state)) for at in shown]
        return sum(widths) + _BETWEEN * (len(widths) - 1)

    def _head_width(self, at: int, state: _State) -> int:
        return max(map(self._length, self._head(at, state).split("\n")))

    def _head(self, at: int, state: _State) -> str:
        column = self._sheet.columns[at]
        head = (at in state.narrow and column.narrow_head) or column.head
        return "\n".join(head.rsplit(" ", 1)) if state.broken else head

    def _width_of(self, at: int, state: _State) -> int:
        key = at, at in state.narrow, state.rounded
        if key not in self._widths:
            cells = self._texts(at, state)
            self._widths[key] = max(map(self._length, cells), default=0)
        return self._widths[key]

    def _texts(self, at: int, state: _State) -> list[str]:
        cells: Sequence[Cell] = self._sheet.narrow[at] if at in state.narrow else self._cells[at]
        if not state.rounded:
            return [str(cell) for cell in cells]
        return [cell.rounded if isinstance(cell, Number) else cell for cell in cells]

    def _with_what_still_fits(self, state: _State, names: Sequence[str]) -> _State:
        """Put back each column that still fits and is filled to a half, the last dropped first."""
        columns = self._sheet.columns
        longest = max(map(self._length, (str(name) for name in self._cells[0])))
        saved = longest - max(map(self._length, names))
        for at in sorted(state.without, key=lambda at: -columns[at].rank):
            again = state._replace(without=state.without - {at})
            shown = {
                columns[each].head for each in range(len(columns)) if each not in again.without
            }
            filled = sum(bool(str(cell)) for cell in self._cells[at])
            if (
                self._total(again) - saved <= self._width
                and 2 * filled >= len(self._cells[at])
                and (not columns[at].needs or columns[at].needs in shown)
            ):
                state = again
        return state

    def _drawn(self, state: _State, names: Sequence[str]) -> Layout:
        columns = self._sheet.columns
        shown = [at for at in range(len(columns)) if at not in state.without]
        texts = [names if at == 0 else self._texts(at, state) for at in shown]
        rows = [list(row) for row in zip(*texts, strict=True)]
        result = rows.pop() if self._sheet.result else None
        return Layout(
            [columns[at] for at in shown],
            [self._head(at, state) for at in shown],
            rows,
            result,
            [columns[at] for at in sorted(state.without)],
            state.rounded,
        )


# ---- Names that are too long. ----


def _indented(way: Callable[[str, int, str], str], name: str, room: int, mark: str) -> str:
    """The name made shorter, with its indent as it is."""
    bare = name.lstrip(" ")
    indent = len(name) - len(bare)
    return name if len(name) <= room else name[:indent] + way(bare, room - indent, mark)


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


_WAYS = (_without_parts, _in_short_parts, _in_initials)
