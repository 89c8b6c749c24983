"""An earlier JSON report -> its rows and total, read by field name.

Counts are read and ratios computed from them, so that no rounded float is compared.
"""

import json
import shlex
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast, get_args

from dscalc.core.blocks import Block, Step
from dscalc.core.cost import Cost
from dscalc.core.fields import UNITS, Unit, count_names, field_name
from dscalc.core.peaks import Footprint, Memory, Moment
from dscalc.core.row import Crosscheck, Row, Side, Sizes, Training, with_shares
from dscalc.core.row import total as together
from dscalc.errors import DscalcError, FileError
from dscalc.report.report import SCHEMA, Report
from dscalc.show import first_line, printable

_LARGEST_COUNT = 10**300  # keeps the ratio of two counts in the range of a float


class Baseline(NamedTuple):
    """The costs in an earlier report.

    Args:
        name: the file.
        rows: in order.
        total: of all rows.
        bits: of a floating element in what it says of memory; None if as it is.
    """

    name: str
    rows: list[Row]
    total: Row
    bits: int | None = None


def read_baseline(
    file: str,
    command: str,
    block: Block | None,
    *,
    question: str = "",
    other: Callable[[str], Report] | None = None,
) -> Baseline:
    """Read an earlier report.

    Args:
        file: JSON, as ``-f json`` writes it.
        command: that made it.
        block: that rows are rewritten as now, if they are; an earlier report may lack it.
        question: the command line that asks the same again, for errors.
        other: makes the same report of a network, if that is what the file names.

    Raises:
        DscalcError: the file cannot be read, is no report, or is of another command or block; the
            message names the command that writes the right one.
    """
    as_ = f" --as {block}" if block else ""
    advice = partial(_advice, file, question or f"dscalc {command} ...{as_}")
    name, report = printable(file), None
    try:
        content = Path(file).read_bytes()
    except FileNotFoundError:
        try:
            if other:
                return _baseline(file, other(file))
        except DscalcError:
            pass
        raise DscalcError(f"there is no baseline {name}; {advice()}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DscalcError(f"cannot read the baseline {name}: {reason}") from None
    try:
        report = _report(content)
        if report is None and other:
            return _baseline(file, _as_a_network(file, other))
        return Baseline(name, *_rows_and_total(report, command, block), _bits(report))
    except DscalcError as error:
        ours = report.get("command") == command if report else b'"schema"' in content[:200]
        reason = printable(str(error))
        raise DscalcError(f"the baseline {name} {reason}; {advice(over=ours)}") from None


def _baseline(file: str, report: Report) -> Baseline:
    return Baseline(printable(file), list(report.rows), report.whole)


def _as_a_network(file: str, other: Callable[[str], Report]) -> Report:
    try:
        return other(file)
    except FileError as error:
        first = first_line(error).removeprefix(f"{printable(file)}:")
        raise DscalcError(f"is neither a JSON report nor a list of layers (line {first})") from None


def _advice(file: str, question: str, *, over: bool = False) -> str:
    """The command that writes a baseline, over no file of another kind."""
    path = target = Path(file)
    if path.exists() and not (over and path.suffix.lower() == ".json"):
        target = path.with_suffix(".json")
        if target.exists() or not path.is_file():
            target = Path("baseline.json")
    form = "" if target.suffix.lower() == ".json" else "-f json "
    written = f"write one with: {question} {form}-o {shlex.quote(str(target))}"
    return printable(written if target == path else f"{written}; then give --baseline {target}")


def _report(content: bytes) -> dict[str, Any] | None:
    """A JSON report; None if the content is something else.

    Raises:
        DscalcError: the content is a report, but damaged, or CSV or JSON Lines.
    """
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        head = content[:200].decode(errors="replace")
        if head.lstrip().startswith("{") and '"schema"' in head:
            raise DscalcError(f"is not JSON ({error})") from None
        first = content.partition(b"\n")[0]
        if b"crosscheck" in first and b"name" in first:
            form = "JSON Lines" if first.startswith(b"{") else "CSV"
            raise DscalcError(f"is a report in {form}, which has no total") from None
        return None
    return value if isinstance(value, dict) and "schema" in value else None


def _rows_and_total(
    report: dict[str, Any] | None, command: str, block: Block | None
) -> tuple[list[Row], Row]:
    """The rows and the total of a report.

    Raises:
        DscalcError: the report is of another kind, or does not have all of its rows.
    """
    if report is None:
        raise DscalcError("is not a JSON report of dscalc")
    schema, made_by = (str(report.get(key))[:60] for key in ("schema", "command"))
    as_ = report.get("as")
    if schema != SCHEMA:
        raise DscalcError(f"has the schema {schema}, but this version reads {SCHEMA}")
    if not isinstance(report.get("command"), str):
        raise DscalcError("does not say which command wrote it")
    if made_by != command:
        raise DscalcError(f"is a report of dscalc {made_by}, but this is dscalc {command}")
    if as_ is None or block is None:
        block = None  # what both know is what it costs as it is
    elif as_ != str(block):
        raise DscalcError(f"was written with --as {str(as_)[:60]}, but this is --as {block}")
    whole, rows = report.get("total"), report.get("rows")
    if not isinstance(whole, dict) or not isinstance(rows, list):
        raise DscalcError("has no total: it holds several networks or models")
    unit: Unit = "flops" if "flops" in whole else "macs"
    total = _Written(whole, "the total", command, block, unit).row()
    read = [
        _Written(row, f"row {number}", command, block, unit).row()
        for number, row in enumerate(rows, 1)
    ]
    added = together(read)
    found = added.as_is.cost
    macs = found.macs if total.unknown else total.as_is.cost.macs  # unknown: not compared
    params = total.as_is.cost.params
    if (found.macs, found.params) != (macs, params):
        raise DscalcError(
            f"has a total of {macs:,} MACs and {params:,} params, but its rows add up to "
            f"{found.macs:,} and {found.params:,}; drop options that select rows, such as --top"
        )
    return with_shares(read), total._replace(share=added.share)


def _bits(report: dict[str, Any] | None) -> int | None:
    bits = report.get("bits") if report else None
    if bits is not None and type(bits) is not int:
        raise DscalcError(f"is damaged: bits is {bits!r:.60}")
    return bits


class _Written:
    """The values of a row in a report, by field name."""

    def __init__(
        self, values: Any, where: str, command: str, block: Block | None, unit: Unit
    ) -> None:
        self._values = values if isinstance(values, dict) else {}
        self._where, self._command, self._block, self._unit = where, command, block, unit
        self._scale = UNITS[unit][1]

    def row(self) -> Row:
        """The row that was written.

        Raises:
            DscalcError: a count is missing, or a value cannot be one that dscalc wrote.
        """
        unknown = self._command == "model" and self._values.get(self._unit, 0) is None
        if not unknown and self._count(self._unit) is None:
            raise self._wrong(self._unit)
        return Row(
            self._word("name"),
            self._word("kind"),
            Sizes(*map(self._size, Sizes._fields)),
            self._side("", ()),
            self._side(self._block.name, self._block.step_names) if self._block else None,
            self._word("kept") if self._block else "",
            self._block,
            calls=self._count("calls"),
            crosscheck=self._crosscheck(),
            unknown=self._unknown() if unknown else {},
            trainable_params=self._count("trainable_params"),
            memory=self._memory(),
            torch_macs=self._count(field_name("torch", self._unit), self._scale),
            training=self._training(),
        )

    def _side(self, name: str, step_names: tuple[str, ...]) -> Side:
        cost = self._cost(name)
        if cost is None:
            raise self._wrong(count_names(name, self._unit)[1])
        steps = [Step(step, None, part) for step in step_names if (part := self._cost(step))]
        macs = self._count(field_name("fvcore", name, self._unit), self._scale)
        params = self._count(field_name("torch", name, "params"))
        counted = None if macs is None or params is None else {"": Cost(macs, params)}
        return Side(cost, tuple(steps), counted)

    def _cost(self, name: str) -> Cost | None:
        macs, params, activations = count_names(name, self._unit)
        held = self._count(params)
        if held is None:
            return None
        known = macs if name or self._values.get(macs) is not None else f"known_{macs}"
        return Cost(self._count(known, self._scale) or 0, held, self._count(activations) or 0)

    def _memory(self) -> Footprint | None:
        weights, peak = self._count("weight_bytes"), self._count("peak_bytes")
        planned = self._count("least_peak_bytes")
        if weights is None:
            return None
        if peak is None or planned is None:
            return Footprint(Memory({}, (), "the report has none"), weights)
        return Footprint(Memory({}, (Moment("", self._word("peak_at"), peak, planned),)), weights)

    def _training(self) -> Training | None:
        """What a step of training costs, of a report with --backward."""
        if "saved_bytes" not in self._values:
            return None
        backward, both = (
            self._count(f"{name}_{self._unit}", self._scale) for name in ("backward", "training")
        )
        forward = None if backward is None or both is None else both - backward
        return Training(forward, backward, self._count("saved_bytes"))

    def _unknown(self) -> dict[str, int]:
        calls = self._values.get("unknown")
        if not isinstance(calls, dict) or {type(number) for number in calls.values()} != {int}:
            raise self._wrong("unknown")
        return {printable(name): number for name, number in calls.items()}

    def _count(self, name: str, scale: int = 1) -> int | None:
        value = self._values.get(name)
        if value is None:
            return None
        if type(value) is not int or not 0 <= value < _LARGEST_COUNT or value % scale:
            raise self._wrong(name)
        return value // scale

    def _size(self, name: str) -> Any:
        value = self._values.get(name)
        if isinstance(value, list) and all(type(part) is int for part in value):
            return tuple(value)
        by_axis = name in ("input_size", "output_size", "kernel_size", "stride", "dilation")
        if value is not None and (by_axis or not isinstance(value, int | str)):
            raise self._wrong(name)
        return value

    def _word(self, name: str) -> str:
        value = self._values.get(name)
        if not isinstance(value, str):
            raise self._wrong(name)
        return printable(value)

    def _crosscheck(self) -> Crosscheck:
        value = self._values.get("crosscheck")
        if value not in get_args(Crosscheck):
            raise self._wrong("crosscheck")
        return cast(Crosscheck, value)

    def _wrong(self, name: str) -> DscalcError:
        value = f"is {self._values[name]!r:.60}" if name in self._values else "is missing"
        return DscalcError(f"is damaged: {name} of {self._where} {value}")
