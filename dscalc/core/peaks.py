"""What a model takes in bytes: its weights, and the most that is alive while it runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from dscalc.show import printable


class Moment(NamedTuple):
    """The end of an operator, or the start of the run.

    Attributes:
        path: the innermost running module; "" is the model.
        operator: torch's name of it, such as "conv2d"; "the inputs" at the start.
        held: bytes that torch holds then, weights left out.
        planned: bytes that a planner needs then, weights left out.
    """

    path: str
    operator: str
    held: int
    planned: int


class Peak(NamedTuple):
    """The most bytes while a module runs: held at a moment, and planned at that one or another."""

    at: Moment
    planned: int


AUTOCAST = "autocast is on, which casts inside of operators"  # why bytes are not known


@dataclass(frozen=True)
class Memory:
    """The memory of one forward pass, in bytes.

    The inputs and whatever the run makes are in the peaks. What was there before is not:
    parameters, buffers, tensors in attributes.

    Attributes:
        weights: of the parameters and buffers of each module, by its path; each storage once.
        moments: the start, then the end of each operator, in the order that they ran.
        unknown: why the peaks are not known; "" if they are.
        bits: of a floating element in all of these; None if as it is.
    """

    weights: Mapping[str, int]
    moments: tuple[Moment, ...]
    unknown: str = ""
    bits: int | None = None

    @property
    def remarks(self) -> list[str]:
        """What else must be known of these numbers."""
        return [
            *([f"memory is at {self.bits} bits a floating element"] if self.bits else []),
            *([f"the peaks of memory are not known: {self.unknown}"] if self.unknown else []),
        ]

    @property
    def weight_bytes(self) -> int:
        """Bytes of all parameters and buffers."""
        return sum(self.weights.values())

    @cached_property
    def peaks(self) -> dict[str, Peak]:
        """The peak while each module runs that called an operator, its parts included, by path.

        That of the model, "", knows the inputs too. There are none if they are not known.
        """
        found: dict[str, Peak] = {}
        for moment in () if self.unknown else self.moments:
            path = moment.path
            while True:
                most = found.get(path, Peak(moment, 0))
                first = max(most.at, moment, key=lambda one: one.held)
                found[path] = Peak(first, max(most.planned, moment.planned))
                if not path:
                    break
                path = path.rpartition(".")[0]
        return found


class Footprint(NamedTuple):
    """What a row takes of the memory of a run.

    Args:
        run: the memory.
        weight_bytes: of its parameters and buffers.
        paths: of its modules; that of the whole model is "".
    """

    run: Memory
    weight_bytes: int
    paths: tuple[str, ...] = ("",)

    @classmethod
    def of_model(cls, run: Memory) -> "Footprint":
        """What the whole model takes."""
        return cls(run, run.weight_bytes)

    @classmethod
    def together(cls, parts: Sequence["Footprint"], depth: int) -> "Footprint":
        """What several rows of a run take: those of the modules at a depth of the tree."""
        paths = [".".join(path.split(".")[:depth]) for part in parts for path in part.paths]
        weights = sum(part.weight_bytes for part in parts)
        return cls(parts[0].run, weights, tuple(dict.fromkeys(paths)))

    @property
    def _peaks(self) -> list[Peak]:
        return [self.run.peaks[path] for path in self.paths if path in self.run.peaks]

    @property
    def peak(self) -> Moment | None:
        """When torch holds the most; None if nothing runs or that is not known."""
        return max((peak.at for peak in self._peaks), key=lambda at: at.held, default=None)

    @property
    def peak_bytes(self) -> int | None:
        """The most that torch holds; None if nothing runs or that is not known."""
        return self.peak and self.peak.held

    @property
    def least_peak_bytes(self) -> int | None:
        """The most that a planner needs, a lower bound; None as above."""
        return max((peak.planned for peak in self._peaks), default=None)

    @property
    def peak_at(self) -> str | None:
        """Module and operator of the peak: "layer1.0.downsample.1 batch_norm", or "the inputs"."""
        if self.peak is None:
            return None
        path, operator, *_ = self.peak
        if self.peak is self.run.moments[0]:
            return operator
        return f"{printable(path) or 'the model'} {operator}"
