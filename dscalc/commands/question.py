"""What a slice adds to a command: options, and what they do at a few named points of a run."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dscalc.core.fields import Field
from dscalc.core.row import Row
from dscalc.errors import DscalcError
from dscalc.report.report import Report

if TYPE_CHECKING:
    from dscalc.commands.asked import Asked


class Question:
    """The options of a slice; each of its own derives from this. Here it does nothing.

    Attributes:
        proves: whether the answer is proved by default.
    """

    proves = True

    @property
    def asked(self) -> Sequence[str]:
        """Which of its options are given, as they are typed."""
        return ()

    def begin(self, asked: "Asked") -> None:
        """Refuse what does not go with it, and read what it needs, before any work is done."""

    @property
    def observe(self) -> Callable[[], Any] | None:
        """What makes an observer of the run of a model, if it needs one."""
        return None

    def find(self, name: str, find: Callable[[str], Field]) -> Field:
        """A field that --get and --assert may read."""
        return find(name)

    @property
    def numbers(self) -> Mapping[str, Row]:
        """What an assertion may name."""
        return {}

    def answer(self, report: Report, asked: "Asked") -> Report:
        """What is answered in place of a report."""
        return report


def the_one(questions: Sequence[Question]) -> Question:
    """The question that is asked; one that does nothing if none is.

    Raises:
        DscalcError: several are asked.
    """
    asked = [(option, each) for each in questions for option in each.asked]
    if len(asked) > 1:
        first, *others = [option for option, _ in asked]
        raise DscalcError(f"{first} prints its own answer; drop {' and '.join(others)}")
    return asked[0][1] if asked else Question()
