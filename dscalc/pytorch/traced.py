"""What a trace says: each product that ran, and what was seen beside them."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from dscalc.core.conv import Conv
from dscalc.core.peaks import Memory
from dscalc.pytorch.walk import Held


@dataclass(frozen=True)
class Operator:
    """One product that ran: where, as part of what, and what it costs.

    Attributes:
        path: the running module if it holds the weight, else the module that owns the weight, else
            the running module; ``""`` is the model.
        kind: the outermost composite (conv, transposed, linear, matmul, attention, einsum, lstm,
            gru, rnn); a product on its own is conv, transposed or matmul.
        leaf: torch's name of the product, such as "addmm".
        call: products of one call of a composite share a number; it increases.
        macs: multiply-accumulates, for the whole batch.
        activations: elements of the output.
        step: the child of the block that ran in place of a convolution, else ``""``.
        conv: the convolution, or the linear layer: one without axes, with its rows as the batch.
        by_torch: whether torch's FlopCounterMode counts it too.
        weight: the parameter of the model that is multiplied with, where it is one itself.
        formula: the user's formula that gave the MACs; ``""`` if it is one of dscalc.
        nonzero: its MACs without those of zeros among the weights; None if nobody asked.
    """

    path: str
    kind: str
    leaf: str
    call: int
    macs: int
    activations: int
    step: str
    conv: Conv | None
    by_torch: bool
    weight: nn.Parameter | None = field(compare=False, repr=False)
    formula: str = ""
    nonzero: int | None = None


@dataclass
class InPlace:
    """What ran in place of a convolution, at each of its calls and on its input.

    Attributes:
        operators: those of the block.
        torch_macs: what torch's FlopCounterMode counts of them.
        instead_of: what it counts of the convolution.
    """

    operators: list[Operator] = field(default_factory=list)
    torch_macs: int = 0
    instead_of: int = 0


@dataclass(frozen=True)
class Trace:
    """All that ran in one forward pass.

    Attributes:
        operators: in the order that they ran, without those of blocks.
        unknown_in: of each module and kind of operator, those without a formula that are not known
            to hold no MACs, and how often they ran.
        torch_macs: what torch's FlopCounterMode counts of the same run, halved; None if it failed.
        ran: paths of modules that ran, or that own a parameter which an operator took.
        blocks: what ran in place of convolutions, by their paths.
        functional: paths of those among them whose weight also ran outside of their forward, or
            that ran with another weight.
        held: what each module held before the run, by path.
        changes: what the model changed of that, such as "aux is deleted".
        doubts: why the counts are not proved, though they may be right: one sentence each.
        doubtful: the module and the kind of operator of rows that are meant.
        memory: what the model takes.
        real: whether real tensors ran, since the model needs values.
        reason: why, in that case.
        observed: what the observer of the run saw, if there was one.
    """

    operators: list[Operator]
    unknown_in: dict[tuple[str, str], Counter[str]]
    torch_macs: int | None
    ran: set[str]
    blocks: dict[str, InPlace]
    functional: set[str]
    held: dict[str, Held]
    changes: list[str]
    doubts: list[str]
    doubtful: set[tuple[str, str]]
    memory: Memory
    real: bool = False
    reason: str = ""
    observed: Any = None

    @property
    def unknown(self) -> Counter[str]:
        """The operators that are not known, and how often they ran."""
        return sum(self.unknown_in.values(), Counter())

    @property
    def macs(self) -> int | None:
        """The sum; None where an operator is unknown."""
        return None if self.unknown else sum(operator.macs for operator in self.operators)

    @property
    def known_to_torch(self) -> int:
        """MACs that FlopCounterMode knows; where nothing is unknown `torch_macs` is the same."""
        return sum(operator.macs for operator in self.operators if operator.by_torch)
