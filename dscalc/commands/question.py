"""The options that a slice adds to a command, and the points of a run at which they act."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dscalc.core.fields import Field
from dscalc.core.row import Row
from dscalc.errors import DscalcError
from dscalc.report.report import Report

if TYPE_CHECKING:
    from dscalc.commands.asked import Asked


class Question:
    """The options of a slice, which derives a class from this one. This one does nothing.

    Attributes:
        proves: whether to cross-check the answer by default.
    """

    proves = True

    @property
    def asked(self) -> Sequence[str]:
        """The options that are given, as typed."""
        return ()

    def begin(self, asked: "Asked") -> None:
        """Refuse options that contradict it, and read its files, before any work."""

    @property
    def observe(self) -> Callable[[], Any] | None:
        """A function that makes an observer of a model's run; None if it needs none."""
        return None

    def find(self, name: str, find: Callable[[str], Field]) -> Field:
        """The field called ``name``, for --get and --assert."""
        return find(name)

    @property
    def numbers(self) -> Mapping[str, Row]:
        """Rows that an assertion may name."""
        return {}

    def answer(self, report: Report, asked: "Asked") -> Report:
        """The report to answer with, instead of ``report``."""
        return report


def the_one(questions: Sequence[Question]) -> Question:
    """The question that is asked; a `Question` that does nothing if there is none.

    Raises:
        DscalcError: several options ask a question.
    """
    asked = [(option, each) for each in questions for option in each.asked]
    if len(asked) > 1:
        first, *others = [option for option, _ in asked]
        raise DscalcError(f"{first} prints its own answer; drop {' and '.join(others)}")
    return asked[0][1] if asked else Question()
