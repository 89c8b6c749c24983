"""What well-known counters answer for the same module: the table in docs/counting.md.

    python docs/tools/measure_peers.py            print the table, for installed counters
    python docs/tools/measure_peers.py --write    and put it into docs/counting.md

fvcore and torch are always there; thop, ptflops, torchinfo and calflops where they are installed.
"""

import contextlib
import copy
import io
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dscalc.pytorch import audit

PAGE = Path(__file__).parents[1] / "counting.md"
BEGIN = "<!-- begin peers: written by docs/tools/measure_peers.py -->"
END = "<!-- end peers -->"


class Case(NamedTuple):
    """A module and its input."""

    what: str
    module: nn.Module
    shape: tuple[int, ...]


class Functional(nn.Module):
    """A convolution by function, with a weight of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(16, 8, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(x, self.weight, padding=1)


def conv(*args: int, bias: bool = False, **options: int | str) -> nn.Conv2d:
    return nn.Conv2d(*args, bias=bias, **options)  # type: ignore[arg-type]


IMAGE = (1, 8, 10, 10)
CASES = [
    Case("8 -> 16, 3x3, 10x10", conv(8, 16, 3, padding=1), IMAGE),
    Case("with a bias", conv(8, 16, 3, padding=1, bias=True), IMAGE),
    Case(
        "as a separable pair",
        nn.Sequential(conv(8, 8, 3, padding=1, groups=8), conv(8, 16, 1)),
        IMAGE,
    ),
    Case("4 groups", conv(8, 16, 3, padding=1, groups=4), IMAGE),
    Case('`padding="same"`', conv(8, 16, 3, padding="same"), IMAGE),
    Case('`padding="same"`, 4x4', conv(8, 16, 4, padding="same"), IMAGE),
    Case("a batch of 4", conv(8, 16, 3, padding=1), (4, *IMAGE[1:])),
    Case("transposed, 2x2, stride 2", nn.ConvTranspose2d(8, 16, 2, 2, bias=False), IMAGE),
    Case("`functional.conv2d`", Functional(), IMAGE),
    Case(
        "with a `BatchNorm2d`",
        nn.Sequential(conv(8, 16, 3, padding=1), nn.BatchNorm2d(16)),
        IMAGE,
    ),
    Case("with a `ReLU`", nn.Sequential(conv(8, 16, 3, padding=1), nn.ReLU()), IMAGE),
    Case("`Linear`, 8 -> 16, with a bias", nn.Linear(8, 16), (1, 8)),
]


def by_dscalc(module: nn.Module, x: Tensor) -> int | None:
    total = audit(module, x).total
    return total.as_is.cost.macs if total else None


def by_fvcore(module: nn.Module, x: Tensor) -> int:
    from fvcore.nn import FlopCountAnalysis

    analysis = FlopCountAnalysis(module, x).unsupported_ops_warnings(False)
    return int(analysis.uncalled_modules_warnings(False).total())


def by_flop_counter_mode(module: nn.Module, x: Tensor) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(x)
    return counter.get_total_flops()


def by_thop(module: nn.Module, x: Tensor) -> int:
    import thop

    return int(thop.profile(module, (x,), verbose=False)[0])


def by_ptflops(module: nn.Module, x: Tensor) -> int:
    import ptflops

    macs, _ = ptflops.get_model_complexity_info(
        module,
        tuple(x.shape[1:]),
        as_strings=False,
        print_per_layer_stat=False,
        backend="pytorch",
    )
    return int(macs)


def by_torchinfo(module: nn.Module, x: Tensor) -> int:
    import torchinfo

    return int(torchinfo.summary(module, input_data=x, verbose=0).total_mult_adds)


def by_calflops(module: nn.Module, x: Tensor) -> int:
    import calflops

    _, macs, _ = calflops.calculate_flops(
        module, tuple(x.shape), output_as_string=False, print_results=False
    )
    return int(macs)


class Counter(NamedTuple):
    """A counter, the package that has it, and what one MAC is in its unit."""

    name: str
    package: str
    count: Callable[[nn.Module, Tensor], int | None]
    unit: int = 1


COUNTERS = [
    Counter("dscalc", "dscalc", by_dscalc),
    Counter("fvcore", "fvcore", by_fvcore),
    Counter("`FlopCounterMode`", "torch", by_flop_counter_mode, unit=2),
    Counter("thop", "thop", by_thop),
    Counter("ptflops", "ptflops", by_ptflops),
    Counter("torchinfo", "torchinfo", by_torchinfo),
    Counter("calflops", "calflops", by_calflops),
]


def installed(counter: Counter) -> bool:
    try:
        return bool(version(counter.package))
    except PackageNotFoundError:
        return False


def measure(counter: Counter, case: Case) -> int | None:
    """What a counter answers for a case, in its own unit and in silence."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            return counter.count(copy.deepcopy(case.module).eval(), torch.zeros(case.shape))
        finally:
            logging.disable(logging.NOTSET)


def cell(counter: Counter, case: Case, macs: int | None) -> str:
    """A count; bold where it is not the MACs in the counter's unit."""
    counted = measure(counter, case)
    assert counted is not None
    assert macs is not None
    return f"{counted:,}" if counted == macs * counter.unit else f"**{counted:,}**"


def table() -> Iterator[str]:
    """The lines of the table."""
    counters = [counter for counter in COUNTERS if installed(counter)]
    yield f"| | {' | '.join(counter.name for counter in counters)} |"
    yield f"|:--|{'--:|' * len(counters)}"
    for case in CASES:
        macs = measure(COUNTERS[0], case)
        cells = [cell(counter, case, macs) for counter in counters]
        yield f"| {case.what} | {' | '.join(cells)} |"
    packages = dict.fromkeys(counter.package for counter in counters[1:])
    yield ""
    release = {package: version(package).partition("+")[0] for package in packages}
    yield f"Measured with {', '.join(f'{name} {number}' for name, number in release.items())}."


def _main() -> None:
    lines = list(table())
    sys.stdout.write("\n".join(lines) + "\n")
    if sys.argv[1:] == ["--write"]:
        before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
        after = rest.partition(END)[2]
        text = "\n".join(["", "", *lines, "", ""])
        PAGE.write_text(f"{before}{BEGIN}{text}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    _main()
