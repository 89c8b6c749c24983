"""``--explain NUMBER`` and ``--peers``: whose number it is, and what other counters print."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from dscalc.commands.options import output_option
from dscalc.commands.question import Question
from dscalc.errors import DscalcError
from dscalc.report.report import Report

if TYPE_CHECKING:
    from dscalc.commands.asked import Asked

SIZES = (128, 160, 192, 224, 240, 256, 288, 299, 320, 384, 512, 640)  # that people give


@dataclass(init=False, eq=False, repr=False)
class Explain(Question):
    """Whose number it is."""

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
        """Which of its options are given."""
        return ["--explain"] if self.explain is not None else []

    def begin(self, asked: "Asked") -> None:
        """Refuse what does not go with it.

        Raises:
            DscalcError: another answer is asked for too, or NUMBER is none.
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
        """What gives the number."""
        from dscalc.peers.call import explained

        assert self.explain is not None
        return explained(report, self.explain, _at_other_sizes(asked))

    @property
    def observe(self) -> Callable[[], Any] | None:
        """What sees the calls of modules and functions."""
        from dscalc.peers.observer import CallObserver

        return CallObserver


@dataclass(init=False, eq=False, repr=False)
class Peers(Explain):
    """The same, and what other counters print for a model."""

    peers: Annotated[
        bool,
        output_option("--peers", help="Show what other counters print for this model, and why."),
    ] = False

    @property
    def asked(self) -> Sequence[str]:
        """Which of its options are given."""
        return [*super().asked, *(["--peers"] if self.peers else [])]

    def begin(self, asked: "Asked") -> None:
        """Refuse what does not go with it; as `Explain`."""
        super().begin(asked)
        if self.peers and asked.output.unit != "macs":
            raise DscalcError("--peers prints what each counter calls its own; drop --unit")

    def answer(self, report: Report, asked: "Asked") -> Report:
        """What is asked for."""
        if not self.peers:
            return super().answer(report, asked)
        from dscalc.peers.call import counters

        return counters(report)


def _at_other_sizes(asked: "Asked") -> Iterator[tuple[int, Report]]:
    """The same at each other size that it runs at."""
    for size in SIZES if asked.at_size else ():
        try:
            assert asked.at_size is not None
            yield size, asked.at_size(size)
        except DscalcError:  # it takes no such size
            continue


def options(command: str) -> type[Question]:
    """The options of a command."""
    return Peers if command == "model" else Explain
