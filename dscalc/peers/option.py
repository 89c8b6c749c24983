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
class Peers(Question):
    """The options --explain and --peers."""

    explain: Annotated[
        str | None,
        output_option(
            "--explain",
            metavar="NUMBER",
            help="Find the counters that print NUMBER, such as 4133742592, '4.13 GMac' or '97.8 "
            "MB'. Exit with 1 if none does.",
        ),
    ] = None
    peers: Annotated[
        bool, output_option("--peers", help="Show what other counters print for this, and why.")
    ] = False
    proves = False

    @property
    def asked(self) -> Sequence[str]:
        """The options that are given."""
        given = {"--explain": self.explain is not None, "--peers": self.peers}
        return [option for option, is_given in given.items() if is_given]

    def begin(self, asked: "Asked") -> None:
        """Refuse options that contradict it.

        Raises:
            DscalcError: NUMBER is not a number; or another answer, a batch, CSV or JSON Lines is
                asked for, or --unit with --peers.
        """
        [option] = self.asked
        asked.refuse_other_answers(option)
        if self.explain is not None:
            from dscalc.peers.printed import read_number

            read_number(self.explain, "--explain")
        elif asked.output.unit != "macs":
            raise DscalcError("--peers prints what each counter calls its own; drop --unit")
        if asked.batch_size > 1:
            raise DscalcError(f"{option} counts one sample, as other counters do; drop --batch")
        if (form := asked.output.format) in ("csv", "jsonl"):
            raise DscalcError(f"{option} needs --format table, markdown, svg or json, got {form}")

    def answer(self, report: Report, asked: "Asked") -> Report:
        """The explanation of the number, or the counts of other counters."""
        from dscalc.peers.call import counters, explained

        if self.explain is None:
            return counters(report)
        return explained(report, self.explain, _at_other_sizes(asked))

    @property
    def observe(self) -> Callable[[], Any] | None:
        """The class that observes calls of modules and functions."""
        from dscalc.peers.observer import CallObserver

        return CallObserver


def _at_other_sizes(asked: "Asked") -> Iterator[tuple[int, Report]]:
    """Reports at the other input sizes that work."""
    if asked.at_size is None:
        return
    for size in SIZES:
        try:
            yield size, asked.at_size(size)
        except DscalcError:  # it does not run at this size
            continue


OPTIONS = Peers
