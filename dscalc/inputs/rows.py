"""CSV or JSON Lines -> the cells of each row, and every error with its line."""

import csv
import json
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Collection, Iterable, Iterator
from itertools import chain
from typing import Any, BinaryIO

from dscalc import show
from dscalc.errors import DscalcError, FileError

Cells = dict[str, str]

_MOST_ERRORS = 50
_LONGEST_LINE = 2**20  # bytes
_OF_A_REPORT = {"crosscheck", "mac_ratio"}  # each report has one of these, no list of layers does
_A_REPORT = (
    "it is a report that dscalc wrote, not a list of layers; for such a list see "
    "dscalc network mobilenet_v1 --show"
)
_SYMBOLS = {"ic": "in_channels", "oc": "out_channels", "f": "kernel_size", "d": "input_size"}


def read_cells(
    stream: BinaryIO, problems: "Problems", columns: Collection[str]
) -> Iterator[tuple[int, Cells]]:
    """Line number and cells of each row; the first line tells CSV from JSON Lines.

    A row that cannot be read has no cells, and ``problems`` says why. ``columns`` are those that a
    file may have.

    Raises:
        FileError: the rest cannot be read; the message names every error so far.
    """
    lines = _lines(stream, problems)
    skipped, first = 0, "\n"
    while first == "\n":
        skipped, first = skipped + 1, next(lines, "")
    lines = chain(["\n"] * (skipped - 1), [first], lines)
    if first.strip() == "{":
        problems.stop(
            skipped,
            "it is one JSON object over many lines, like a report of dscalc; "
            "write one object per line, one for each layer",
        )
    if first.lstrip().startswith("["):
        problems.stop(
            skipped, "it begins like a JSON array; write one JSON object per line instead"
        )
    if first.lstrip().startswith("{"):
        yield from _json_cells(lines, problems)
    else:
        yield from _csv_cells(lines, problems, columns)


class Problems:
    """Gathers the errors of a file, so that one run names every bad row."""

    def __init__(self, file: str) -> None:
        self.file = show.printable(file)
        self.found: list[tuple[int, str]] = []

    def add(self, line: int, reason: object) -> None:
        """Add an error of a line; if there are too many, stop reading."""
        self.found.append((line, f"{self.file}:{line}: {show.printable(str(reason))}"))
        if len(self.found) == _MOST_ERRORS:
            self.stop(line, "too many errors; dscalc stopped reading here")

    def stop(self, line: int, reason: str) -> None:
        """Add an error that makes the rest unreadable, and raise a FileError."""
        self.add(line, reason)
        self.raise_any()

    def raise_any(self) -> None:
        """Raise a FileError if there are errors."""
        if self.found:
            self.found.sort(key=lambda problem: problem[0])
            raise FileError("\n".join(text for _, text in self.found))


def _lines(stream: BinaryIO, problems: Problems) -> Iterator[str]:
    """The lines as text; comments and lines that cannot be read come as blank lines."""
    number = 0
    while line := stream.readline(_LONGEST_LINE):
        number += 1
        if len(line) == _LONGEST_LINE:
            problems.stop(number, f"the line is longer than {_LONGEST_LINE:,} bytes")
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            if number == 1 and line.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
                problems.stop(number, "the file is UTF-16 text; save it as UTF-8")
            problems.add(number, "the line is not UTF-8 text")
            text = ""
        yield "\n" if not text.strip() or text.startswith("#") else text


def _csv_cells(
    lines: Iterable[str], problems: Problems, columns: Collection[str]
) -> Iterator[tuple[int, Cells]]:
    """Line number and cells of each row; no cells if the row is malformed."""
    reader = csv.reader(lines, strict=True)
    header: list[str] = []
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            problems.add(reader.line_num, f"malformed CSV: {error}")
            if not header:
                problems.raise_any()
            yield reader.line_num, {}
            continue
        if cells is None:
            return
        if not any(cell.strip() for cell in cells):
            continue
        if not header:
            header = [cell.strip() for cell in cells]
            _check_columns(header, reader.line_num, problems, columns)
        elif len(cells) != len(header):
            problems.add(
                reader.line_num, f"{len(cells)} values for the {len(header)} columns of the header"
            )
            yield reader.line_num, {}
        else:
            yield reader.line_num, dict(zip(header, map(str.strip, cells), strict=True))


def _json_cells(lines: Iterable[str], problems: Problems) -> Iterator[tuple[int, Cells]]:
    """Line number and cells of each object; no cells if it is malformed."""
    for number, line in enumerate(lines, 1):
        if line == "\n":
            continue
        cells: Cells = {}
        try:
            values = json.loads(
                line.strip(), object_pairs_hook=_without_duplicates, parse_int=str, parse_float=str
            )
            if not isinstance(values, dict) or not values:
                raise DscalcError(
                    f"each line must be one JSON object, got {show.quoted(line.strip())}"
                )
            if not _OF_A_REPORT.isdisjoint(values):
                problems.stop(number, _A_REPORT)
            cells = {name: _as_cell(name, value) for name, value in values.items()}
        except json.JSONDecodeError as error:
            problems.add(number, f"malformed JSON: {error.msg} at column {error.colno}")
        except RecursionError:
            problems.add(number, "malformed JSON: it is nested too deeply")
        except FileError:
            raise
        except DscalcError as error:
            problems.add(number, error)
        yield number, cells


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise DscalcError(f"{show.quoted(twice)} is given twice")
    return values


def _as_cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):  # also numbers, as written
        return value.strip()
    if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
        return show.times(value)
    rule = "must be a string, a whole number, true or false"
    kinds: dict[type, str] = {list: "an array", dict: "an object"}
    got = kinds.get(type(value), repr(value))  # repr would quote its numbers
    raise DscalcError(f"{show.printable(name)} {rule}, got {got}")


def _check_columns(
    header: list[str], line: int, problems: Problems, columns: Collection[str]
) -> None:
    if len(header) == 1 and any(mark in header[0] for mark in ";\t"):
        problems.stop(line, "there is only one column; separate columns with commas")
    if not _OF_A_REPORT.isdisjoint(header):
        problems.stop(line, _A_REPORT)
    for number, column in enumerate(header):
        if column in header[:number]:
            problems.add(line, f"the column {show.quoted(column)} is given twice")
        elif column not in columns:
            problems.add(line, unknown("column", column, columns))
    if "kind" not in header:
        problems.add(line, "there is no column kind; the first row must name the columns")
    problems.raise_any()


def unknown(what: str, word: str, known: Iterable[str]) -> str:
    """An error: the word is not in ``known``."""
    return f"unknown {what} {show.quoted(word)}; {suggestion(word, known)}"


def suggestion(word: str, known: Iterable[str]) -> str:
    """A hint at the word that was probably meant."""
    symbol = _SYMBOLS.get(word.lower())
    known = list(known)
    return f"did you mean {symbol}?" if symbol in known else show.did_you_mean(word, known)
