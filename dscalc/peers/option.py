"""``--explain NUMBER`` and ``--peers``: whose number it is, and the counts of other counters."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from dscalc.commands.options import output_option
from dscalc.commands.question import Question
from dscalc.errors import DscalcError
from dscalc.report.report import Report

if TYPE_CHECKING:
    from dscalc.commands.asked import Asked

SIZES = (128, 160, 192, 224, 240, 256, 288, 299, 320, 384, 512, 640)  # common input sizes


@dataclass(init=False, eq=False, repr=False)
class Explain(Question):
    """The option --explain."""

    explain: Annotated[
        str | None,
        output_option(
            "--explain",
            metavar="NUMBER",
            help="Find the counters and conventions that give NUMBER, a count from elsewhere, to "
            "all its digits: 4133742592 or 4.13G. Exit with 1 if none does.",
        ),
    ] = None
    proves = False

    @property
    def asked(self) -> Sequence[str]:
        """The options that are given."""
        return ["--explain"] if self.explain is not None else []

    def begin(self, asked: "Asked") -> None:
        """Refuse options that contradict it.

        Raises:
            DscalcError: NUMBER is not a number, or another answer, a batch, CSV or JSON Lines is
                asked for.
        """
        [option] = self.asked
        asked.refuse_other_answers(option)
        if self.explain is not None:
            from dscalc.peers.conventions import read_number

            read_number(self.explain, "--explain")
        if asked.batch_size > 1:
            raise DscalcError(f"{option} counts one sample, as other counters do; drop --batch")
        if (form := asked.output.format) in ("csv", "jsonl"):
            raise DscalcError(f"{option} needs --format table, markdown, svg or json, got {form}")

    def answer(self, report: Report, asked: "Asked") -> Report:
        """The explanation of the number."""
        from dscalc.peers.call import explained

        assert self.explain is not None
        return explained(report, self.explain, _at_other_sizes(asked))

    @property
    def observe(self) -> Callable[[], Any] | None:
        """The class that observes calls of modules and functions."""
        from dscalc.peers.observer import CallObserver

        return CallObserver


@dataclass(init=False, eq=False, repr=False)
class Peers(Explain):
    """The options --explain and --peers."""

    peers: Annotated[
        bool,
        output_option("--peers", help="Show what other counters print for this model, and why."),
    ] = False

    @property
    def asked(self) -> Sequence[str]:
        """The options that are given."""
        return [*super().asked, *(["--peers"] if self.peers else [])]

    def begin(self, asked: "Asked") -> None:
        """Refuse options that contradict it.

        Raises:
            DscalcError: as `Explain`; or --peers comes with --unit.
        """
        super().begin(asked)
        if self.peers and asked.output.unit != "macs":
            raise DscalcError("--peers prints what each counter calls its own; drop --unit")

    def answer(self, report: Report, asked: "Asked") -> Report:
        """The explanation of the number, or the counts of other counters."""
        if not self.peers:
            return super().answer(report, asked)
        from dscalc.peers.call import counters

        return counters(report)


def _at_other_sizes(asked: "Asked") -> Iterator[tuple[int, Report]]:
    """Reports at the other input sizes that work."""
    for size in SIZES if asked.at_size else ():
        try:
            assert asked.at_size is not None
            yield size, asked.at_size(size)
        except DscalcError:  # it does not run at this size
            continue


def options(command: str) -> type[Question]:
    """The class of options of a command."""
    return Peers if command == "model" else Explain
