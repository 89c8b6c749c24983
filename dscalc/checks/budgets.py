"""TOML -> the budgets of a project: command lines and their assertions."""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dscalc import show
from dscalc.errors import DscalcError, FileError
from dscalc.inputs.rows import unknown

_KEYS = ("name", "run", "assert", "assert-each", "baseline")
_ELSEWHERE = (
    *("--format", "--output", "--plot", "--get", "--rows", "--show", "--list", "--help"),
    *("--quiet", "--verbose", "--explain", "--peers", "--cite", "--version"),
)
_HEADER = r"\s*\[\[\s*(tool\s*\.\s*dscalc\s*\.\s*)?check\s*\]\]"
_EXAMPLE = 'run = "network mobilenet_v1" and assert = "macs <= 600M"'


class Budget(NamedTuple):
    """A command line and the assertions on its answer.

    Args:
        name: its name in the report.
        run: arguments of dscalc, including the assertions and the baseline.
        assertions: the assertions as written, and whether each is about each row.
        line: of the file, where it begins; None if it is no ``[[check]]``.
        lines: the lines of the assertions, as far as they are found.
    """

    name: str
    run: list[str]
    assertions: list[tuple[str, bool]]
    line: int | None = None
    lines: Mapping[tuple[str, bool], int] = {}

    def line_of(self, assertion: str, *, each: bool) -> int | None:
        """The line of an assertion, or else that of the budget."""
        return self.lines.get((assertion, each), self.line)


def find_budgets(folder: Path) -> Path:
    """The nearest pyproject.toml, from a folder upward, that has budgets.

    Other keys in ``[tool.dscalc]`` count too, so that `read_budgets` reports them.

    Raises:
        DscalcError: there is none, or a file on the way cannot be read.
        FileError: a file on the way is not TOML.
    """
    for above in (folder, *folder.parents):
        file = above / "pyproject.toml"
        if file.is_file() and any(_tables(file, _text_of(file))):
            return file
    raise DscalcError(
        "no pyproject.toml here or above has [[tool.dscalc.check]]; "
        f"add one with {_EXAMPLE}, or name a file"
    )


def read_budgets(file: Path) -> list[Budget]:
    """The ``[[check]]`` tables of a file, or its ``[[tool.dscalc.check]]`` tables.

    Raises:
        DscalcError: the file cannot be read, or has no budgets.
        FileError: the file is not TOML, or budgets are wrong; the message names every error.
    """
    text = _text_of(file)
    tables, others = _tables(file, text)
    places = _numbered_lines(text.splitlines(), len(tables))
    name = show.printable(str(file))
    problems = [f"{name}: {unknown('key', key, ['check'])}" for key in others]
    if not tables and not problems:
        raise DscalcError(
            f"{name} has no [[check]] or [[tool.dscalc.check]]; add one with {_EXAMPLE}"
        )
    budgets = []
    for number, table in enumerate(tables, 1):
        where = f"{name}: check {number}"
        reasons = [*_problems(table)] if isinstance(table, dict) else ["it must be a table"]
        if reasons:
            problems += [f"{where}: {show.printable(reason)}" for reason in reasons]
        else:
            budgets.append(_budget(table, places[number - 1]))
    if problems:
        raise FileError("\n".join(problems))
    return budgets


def _text_of(file: Path) -> str:
    try:
        return file.read_text("utf-8-sig")
    except OSError as error:
        raise DscalcError(f"cannot read {file}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise DscalcError(f"cannot read {file}: it is not UTF-8 text") from None


def _tables(file: Path, text: str) -> tuple[list[Any], list[str]]:
    """The budgets in the text of a file, and other keys beside them."""
    import tomllib

    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        reason = str(error)
        place = re.fullmatch(r"(.*) \(at line (\d+), column \d+\)", reason, re.DOTALL)
        line = f"{file}:{place[2]}: {place[1]}" if place else f"{file}: {reason}"
        raise FileError(show.printable(line)) from None
    except RecursionError:
        raise FileError(f"{show.printable(str(file))}: it is nested too deeply") from None
    except ValueError:
        raise FileError(f"{show.printable(str(file))}: a number has too many digits") from None
    tool = data.get("tool", {})
    inner = tool.get("dscalc") if isinstance(tool, dict) else None
    if "check" not in data and isinstance(inner, dict):
        data = inner
    elif file.name == "pyproject.toml":  # other keys belong to other tools
        data = {key: value for key, value in data.items() if key == "check"}
    tables = data.pop("check", [])
    return tables if isinstance(tables, list) else [tables], [*data]


def _problems(table: Mapping[str, Any]) -> Iterator[str]:
    """Every error in a budget."""
    for key, value in table.items():
        if key not in _KEYS:
            yield unknown("key", key, _KEYS)
        elif key in ("assert", "assert-each"):
            if not all(isinstance(text, str) for text in _as_list(value)):
                yield f"{key} must be a string or a list of strings, got {value!r}"
        elif not isinstance(value, str):
            yield f"{key} must be a string, got {value!r}"
    if "run" not in table:
        yield 'run is missing; add a command line such as "network mobilenet_v1"'
    elif isinstance(table["run"], str):
        yield from _problems_of_run(table["run"])
    if not _as_list(table.get("assert", [])) and not _as_list(table.get("assert-each", [])):
        yield 'assert is missing; add an assertion such as "macs <= 600M"'


def _problems_of_run(text: str) -> Iterator[str]:
    try:
        run = _split_words(text)
    except ValueError as error:
        yield f"run {show.quoted(text)} is not a command line: {str(error).lower()}"
        return
    if not run:
        yield 'run is empty; give a command line such as "network mobilenet_v1"'
    elif run[0] == "check":
        yield "run cannot be another check"
    for word in run:
        option = word.partition("=")[0]
        short = re.match(r"-[foqvh]", word)
        if option in _ELSEWHERE or short:
            yield f"run only checks assertions; drop {short[0] if short else option}"


def _budget(table: Mapping[str, Any], place: Mapping[int, str]) -> Budget:
    run, assertions = _split_words(table["run"]), list[tuple[str, bool]]()
    lines: dict[tuple[str, bool], int] = {}
    for key in ("assert", "assert-each"):
        keyed = (line for line, words in place.items() if re.match(rf"\W*{key}\W*=", words))
        start = next(keyed, 0)
        for text in _as_list(table.get(key, [])):
            run += [f"--{key}", text]
            one = show.printable(text), key == "assert-each"
            assertions.append(one)
            for line, words in place.items():
                if line >= start and (f'"{text}"' in words or f"'{text}'" in words):
                    lines.setdefault(one, line)
    if "baseline" in table:
        run += ["--baseline", table["baseline"]]
    name = show.printable(table.get("name") or table["run"].strip())
    return Budget(name, run, assertions, min(place, default=None), lines)


def _numbered_lines(lines: Sequence[str], count: int) -> list[dict[int, str]]:
    """The numbered lines of each of ``count`` budgets; none if they are not all ``[[check]]``."""
    starts = [at for at, line in enumerate(lines) if re.match(_HEADER, line)]
    if len(starts) != count:
        return [{}] * count
    ends = [*starts, len(lines)][1:]
    return [
        dict(enumerate(lines[start:end], start + 1))
        for start, end in zip(starts, ends, strict=True)
    ]


def _split_words(text: str) -> list[str]:
    """The words of a command line, without a ``dscalc`` in front."""
    said = shlex.split(text)
    return said[1:] if said[:1] == ["dscalc"] else said


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
