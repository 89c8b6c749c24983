"""``--cite``: one sentence to use in a paper."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from dscalc.commands.options import output_option
from dscalc.commands.question import Question
from dscalc.errors import DscalcError
from dscalc.report.report import Report

if TYPE_CHECKING:
    from dscalc.commands.asked import Asked


@dataclass(init=False, eq=False, repr=False)
class Cite(Question):
    """The option --cite."""

    cite: Annotated[
        bool,
        output_option("--cite", help="Print a sentence to use in a paper."),
    ] = False

    @property
    def asked(self) -> Sequence[str]:
        """The option, if it is given."""
        return ["--cite"] if self.cite else []

    def begin(self, asked: "Asked") -> None:
        """Refuse options that contradict it.

        Raises:
            DscalcError: another answer or another format is asked for.
        """
        asked.refuse_other_answers("--cite")
        if (form := asked.output.format) != "table":
            raise DscalcError(
                f"--cite prints a sentence, not {form}; drop --format, or end FILE in .txt"
            )

    def answer(self, report: Report, asked: "Asked") -> Report:
        """The sentence."""
        from dscalc.citation.call import Citation

        return report.as_a(Citation)


OPTIONS = Cite
