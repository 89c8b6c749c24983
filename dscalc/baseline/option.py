"""``--baseline FILE``: compare ``network`` and ``model`` with an earlier report."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from dscalc.commands.options import is_about_output, output_option, written_again
from dscalc.commands.question import Question
from dscalc.core.fields import Field
from dscalc.core.row import Row
from dscalc.errors import DscalcError
from dscalc.report.report import Report

if TYPE_CHECKING:
    from dscalc.baseline.earlier import Baseline
    from dscalc.commands.asked import Asked


@dataclass(init=False, eq=False, repr=False)
class Since(Question):
    """The option --baseline."""

    baseline: Annotated[
        Path | None,
        output_option(
            "--baseline",
            metavar="FILE",
            readable=False,
            help="Show what changed since this JSON report. --assert can use it: 'macs <= 1.05 * "
            "baseline'.",
        ),
    ] = None

    @property
    def asked(self) -> Sequence[str]:
        """The option, if it is given."""
        return ["--baseline"] if self.baseline is not None else []

    def begin(self, asked: "Asked") -> None:
        """Read the earlier report.

        Raises:
            DscalcError: as `read_baseline`; or there are several networks or models, or a selection
                of rows.
        """
        if asked.several:
            raise DscalcError("--baseline compares one network or model; give only one")
        output = asked.output
        if output.where or output.sort is not None or output.top is not None:
            raise DscalcError("--baseline shows what changed; drop --where, --sort and --top")
        from dscalc.baseline.earlier import read_baseline

        self._unit = output.unit
        self._earlier: Baseline = read_baseline(
            str(self.baseline), asked.command, asked.block,
            question=written_again(asked.ctx, is_about_output), other=asked.other,
        )  # fmt: skip

    def find(self, name: str, find: Callable[[str], Field]) -> Field:
        """The field called ``name`` of a total, or of its change."""
        from dscalc.baseline.view import field_of_total

        return field_of_total(name, self._earlier, find, self._unit)

    @property
    def numbers(self) -> Mapping[str, Row]:
        """The total that an assertion may name."""
        return {"baseline": self._earlier.total}

    def answer(self, report: Report, asked: "Asked") -> Report:
        """The report of changes."""
        from dscalc.baseline.call import changes_since

        return changes_since(report, self._earlier)


OPTIONS = Since
