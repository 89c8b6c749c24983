"""What well-known counters answer: the tables in docs/counting.md.

    python docs/tools/measure_peers.py            print the table of cases, for installed counters
    python docs/tools/measure_peers.py --write    and put it into docs/counting.md
    python docs/tools/measure_peers.py --record   totals of the small models of tests/counted.py
    python docs/tools/measure_peers.py [--counter=NAME] MODEL[@SIZE]...
                                                  totals of models of torchvision and timm, of one
                                                  counter or all, and what peers/conventions.py
                                                  makes of them

fvcore and torch are always there; the others where they are installed. thop and ultralytics-thop
have the same module, as have two versions of one counter: put them into folders of their own (pip
install --target) and name one in PYTHONPATH.
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

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from counted import IMAGE as SMALL
from counted import MODELS

from dscalc.peers.observer import CallObserver
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


def by_fvcore_in_training(module: nn.Module, x: Tensor) -> int:
    return by_fvcore(module.train(), x)


def by_mmengine(module: nn.Module, x: Tensor) -> int:
    from mmengine.analysis import FlopAnalyzer

    return int(FlopAnalyzer(module.train(), x).unsupported_ops_warnings(False).total())


def by_mmcv(module: nn.Module, x: Tensor) -> int:
    from mmcv.cnn import get_model_complexity_info

    found = get_model_complexity_info(module, tuple(x.shape[1:]), False, False)
    return int(found[0])


def by_torchstat(module: nn.Module, x: Tensor, what: str = "Flops") -> int:
    from torchstat.model_hook import ModelHook

    # It replaces torch's own classes' __call__ and leaves them so.
    hook = ModelHook(module, tuple(x.shape[1:]))
    for kind, call in hook._origin_call.items():
        kind.__call__ = call
    return sum(int(getattr(leaf, what)) for leaf in hook.retrieve_leaf_modules().values())


def by_torchstat_madd(module: nn.Module, x: Tensor) -> int:
    return by_torchstat(module, x, "MAdd")


def by_flop_counter_mode(module: nn.Module, x: Tensor) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(x)
    return counter.get_total_flops()


def by_thop(module: nn.Module, x: Tensor) -> int:
    import thop

    return int(thop.profile(module, (x,), verbose=False)[0])


def by_ptflops(module: nn.Module, x: Tensor, **options: str) -> int:
    import ptflops

    macs, _ = ptflops.get_model_complexity_info(
        module, tuple(x.shape[1:]), as_strings=False, print_per_layer_stat=False, **options
    )
    return int(macs)


def by_ptflops_aten(module: nn.Module, x: Tensor) -> int:
    return by_ptflops(module, x, backend="aten")


def by_ptflops_pytorch(module: nn.Module, x: Tensor) -> int:
    return by_ptflops(module, x, backend="pytorch")


def by_torchinfo(module: nn.Module, x: Tensor) -> int:
    import torchinfo

    return int(torchinfo.summary(module, input_data=x, verbose=0).total_mult_adds)


def by_calflops(module: nn.Module, x: Tensor, what: int = 1) -> int:
    import calflops

    found = calflops.calculate_flops(
        module, tuple(x.shape), output_as_string=False, print_results=False
    )
    return int(found[what])


def by_calflops_flops(module: nn.Module, x: Tensor) -> int:
    return by_calflops(module, x, 0)


def by_torchprofile(module: nn.Module, x: Tensor) -> int:
    from torchprofile import profile_macs

    return int(profile_macs(module, x))


def by_torchscan(module: nn.Module, x: Tensor) -> int:
    from torchscan import crawl_module

    layers = crawl_module(module, tuple(x.shape[1:]))["layers"]
    found = [layer["metrics"]["macs"]["value"] for layer in layers if "macs" in layer["metrics"]]
    return sum(macs or 0 for macs in found)


def by_flop_counter_mode_meta(module: nn.Module, x: Tensor) -> int:
    return by_flop_counter_mode(copy.deepcopy(module).to("meta"), x.to("meta"))


def by_flop_counter_mode_cpu(module: nn.Module, x: Tensor) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        module(x)
    return counter.get_total_flops()


def by_compute_flops(module: nn.Module, x: Tensor) -> int:
    from compute_flops import count_model_param_flops

    return int(count_model_param_flops(module, x.shape[-1]))


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
    Counter("ultralytics-thop", "ultralytics-thop", by_thop),
    Counter("ptflops", "ptflops", by_ptflops_pytorch),
    Counter("torchinfo", "torchinfo", by_torchinfo),
    Counter("calflops", "calflops", by_calflops),
    Counter("torchprofile", "torchprofile", by_torchprofile),
    Counter("torchscan", "torchscan", by_torchscan),
]


def whole_model_counters() -> dict[str, Callable[[nn.Module, Tensor], int]]:
    """What is installed, by the names of the entries in peers/conventions.py."""
    found: dict[str, Callable[[nn.Module, Tensor], int]] = {
        "fvcore 0.1.5": by_fvcore,
        "fvcore 0.1.5 in training mode": by_fvcore_in_training,
        "FlopCounterMode": by_flop_counter_mode_meta,
        "FlopCounterMode, CPU": by_flop_counter_mode_cpu,
        "FlopCounterMode, CPU, no_grad": by_flop_counter_mode,
    }
    for package in ("thop", "ultralytics-thop"):  # the first has been put in front of the second
        if has(package):
            release = ".".join(version(package).split(".")[:3]).partition("-")[0]
            name = f"{package} {release}"
            month = version(package)[-10:-6]  # of a release of 2019 or 2020, such as 1909
            early = {"1909": "2019", "1910": "late 2019", "1912": "late 2019", "2001": "early 2020"}
            found[f"thop of {early[month]}" if month in early else name] = by_thop
            break
    if has("ptflops"):
        old = version("ptflops") < "0.7.3"  # which has one backend
        found[f"ptflops {version('ptflops')}"] = by_ptflops if old else by_ptflops_pytorch
        if not old:
            found[f"ptflops {version('ptflops')} (aten)"] = by_ptflops_aten
    for package, count in (
        ("torchinfo", by_torchinfo),
        ("calflops", by_calflops),
        ("torchprofile", by_torchprofile),
        ("torchscan", by_torchscan),
    ):
        if has(package):
            found[f"{package} {version(package)}"] = count
    if has("torchstat"):
        found["torchstat 0.0.7"], found["torchstat 0.0.7 (MAdd)"] = by_torchstat, by_torchstat_madd
    if has("mmcv"):
        found["mmcv 1.7"] = by_mmcv
    if has("mmengine"):
        found["mmengine 0.10 (OpenMMLab)"] = by_mmengine
    if has("calflops"):
        found[f"calflops {version('calflops')} (FLOPs)"] = by_calflops_flops
    with contextlib.suppress(ImportError):
        import compute_flops  # noqa: F401  # of that repository, if its folder is on the path

        found["rethinking-network-pruning"] = by_compute_flops
    return found


def has(package: str) -> bool:
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False


def measure(counter: Counter, case: Case) -> int | None:
    """What a counter answers for a case, in its own unit."""
    return in_silence(counter.count, case.module, torch.zeros(case.shape))


def in_silence(
    count: Callable[[nn.Module, Tensor], int | None], module: nn.Module, x: Tensor
) -> int | None:
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            return count(copy.deepcopy(module).eval(), x)
        finally:
            logging.disable(logging.NOTSET)


def totals(module: nn.Module, x: Tensor, only: str = "") -> dict[str, int | str]:
    """What each installed counter prints for a model, or what it raises."""
    found: dict[str, int | str] = {}
    for name, count in whole_model_counters().items():
        if not name.startswith(only):
            continue
        try:
            found[name] = in_silence(count, module, x) or 0
        except Exception as error:  # a counter that cannot count it
            found[name] = f"{type(error).__name__}: {str(error)[:60]}"
    return found


def known_as(name: str) -> tuple[nn.Module, Tensor]:
    """A model of torchvision or timm, and its input: resnet50, or resnet50@160."""
    name, _, size = name.partition("@")
    import torchvision

    if hasattr(torchvision.models, name):
        model = getattr(torchvision.models, name)()
    else:
        import timm

        model = timm.create_model(name)
    return model.eval(), torch.zeros(1, 3, int(size or 224), int(size or 224))


def compared(names: list[str]) -> Iterator[str]:
    """What counters print for models, and what the table of conventions makes of them."""
    from dscalc.peers.conventions import TABLE

    only = next((name.partition("=")[2] for name in names if name.startswith("--counter=")), "")
    for name in names:
        if name.startswith("--"):
            continue
        model, x = known_as(name)
        quantities = audit(model, x, verify=False, observe=CallObserver).extra
        claimed = {entry.name: entry.summands(quantities) for entry in TABLE}
        for counter, printed in totals(model, x, only).items():
            summands = claimed.get(counter)
            ours = None if summands is None else sum(value for _, value in summands)
            verdict = "same" if ours == printed else "not claimed" if ours is None else f"{ours:,}"
            yield f"{name}\t{counter}\t{printed}\t{verdict}"


def cell(counter: Counter, case: Case, macs: int | None) -> str:
    """A count; bold where it is not the MACs in the counter's unit."""
    counted = measure(counter, case)
    assert counted is not None
    assert macs is not None
    return f"{counted:,}" if counted == macs * counter.unit else f"**{counted:,}**"


def table() -> Iterator[str]:
    """The lines of the table."""
    counters = [counter for counter in COUNTERS if has(counter.package)]
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
    asked = sys.argv[1:]
    if asked == ["--record"]:
        for name, make in MODELS.items():
            torch.manual_seed(0)
            sys.stdout.write(f'    "{name}": {totals(make().eval(), torch.zeros(SMALL))},\n')
        return
    if asked and asked != ["--write"]:
        for line in compared(asked):
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()
        return
    lines = list(table())
    sys.stdout.write("\n".join(lines) + "\n")
    if asked:
        before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
        after = rest.partition(END)[2]
        text = "\n".join(["", "", *lines, "", ""])
        PAGE.write_text(f"{before}{BEGIN}{text}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    _main()
