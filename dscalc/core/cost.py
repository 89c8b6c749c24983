"""Costs: exact counts that add up."""

from collections.abc import Iterable
from typing import NamedTuple

made = tuple.__new__  # a NamedTuple without its slow __new__: grids have millions of rows


class Cost(NamedTuple):
    """Exact counts of a layer, or the sums over several layers.

    Args:
        macs: multiply-accumulates for the whole batch; 1 MAC is 2 FLOPs. Adding a bias is not a
            MAC.
        params: weights and biases.
        activations: output elements of every convolution, linear layer and matrix product, for the
            whole batch. Source: Radosavovic et al., 2020 (arXiv 2003.13678), section 2.
        inputs: elements that these read, besides their params, for the whole batch.
    """

    macs: int
    params: int
    activations: int = 0
    inputs: int = 0

    def __add__(self, other: "Cost") -> "Cost":  # type: ignore[override]
        return made(
            Cost,
            (
                self.macs + other.macs,
                self.params + other.params,
                self.activations + other.activations,
                self.inputs + other.inputs,
            ),
        )


NOTHING = Cost(0, 0)


def sum_costs(costs: Iterable[Cost]) -> Cost:
    """The sum of costs."""
    return sum(costs, NOTHING)
