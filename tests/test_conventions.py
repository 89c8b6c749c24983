"""Other people's numbers: what counters print, and which of them print a number."""

import json
import random
import re
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import architectures
import pytest
import torch
from counted import IMAGE, MODELS, PRINTED
from layers import Calling
from torch import nn
from torch.nn import functional as F  # noqa: N812

from dscalc.cli import main
from dscalc.core.fields import Unit
from dscalc.errors import DscalcError
from dscalc.inputs.network_file import load_network
from dscalc.peers.conventions import ELSEWHERE, MACS, OPENMMLAB, TABLE
from dscalc.peers.explanation import (
    Explanation,
    Match,
    Source,
    _answers,
    _candidates,
    chance,
    find_explanation,
)
from dscalc.peers.observer import CallObserver
from dscalc.peers.printed import read_number
from dscalc.peers.quantities import Quantities, row_quantities, without
from dscalc.peers.view import peers_data
from dscalc.pytorch import audit

ENTRIES = {entry.name: entry for entry in TABLE}
_RECORDED = json.loads((Path(__file__).parent / "data/disputes.json").read_text("utf-8"))
DISPUTES = _RECORDED["disputes"]


def seen(model: nn.Module, size: int = 224) -> tuple[Quantities, int]:
    """The quantities of a model, and its parameters."""
    found = audit(model, (1, 3, size, size), verify=False, observe=CallObserver).extra
    assert found is not None
    return found, sum(parameter.numel() for parameter in model.parameters())


def printed_by(name: str, found: Quantities) -> int | None:
    summands = ENTRIES[name].summands(found)
    return None if summands is None else sum(value for _, value in summands)


@pytest.fixture(scope="module")
def known() -> dict[str, Source]:
    with torch.device("meta"):
        models = {
            "resnet50": architectures.resnet50(),
            "mobilenet_v2": architectures.mobilenet_v2(),
            "vit_b_16": architectures.vit_b_16(),
            "deit_s": architectures.deit_s(),
            "mobilenet_v1": architectures.mobilenet_v1(),
            "convnext_tiny": architectures.convnext_tiny(),
        }
    return {name: Source("", *seen(model)) for name, model in models.items()}


def explained(source: Source, number: str, unit: Unit = "macs") -> list[Match]:
    return find_explanation(read_number(number, "--explain"), [source], unit).answers


def counters(answers: list[Match]) -> dict[str, int]:
    return {answer.candidate.by: answer.candidate.total for answer in answers}


# What counters print


@pytest.mark.parametrize("name", MODELS)
def test_an_entry_claims_only_what_its_counter_printed(name: str) -> None:
    found = seen(MODELS[name](), IMAGE[-1])[0]
    here = [entry.name for entry in TABLE if entry.assumes not in (ELSEWHERE, OPENMMLAB)]
    claimed = {entry: printed_by(entry, found) for entry in here}
    assert {entry: count for entry, count in claimed.items() if count is not None} == {
        entry: PRINTED[name][entry] for entry, count in claimed.items() if count is not None
    }
    assert len([count for count in claimed.values() if count is not None]) >= 17


@pytest.mark.parametrize(
    ("model", "entry", "count"),
    [
        ("resnet50", "ultralytics-thop 2.2.3", 4_133_742_592),
        ("resnet50", "thop 0.1.1", 4_133_742_592),
        ("resnet50", "fvcore 0.1.5", 4_111_512_576),
        ("resnet50", "ptflops 0.7.5", 4_132_436_968),
        ("resnet50", "ptflops 0.7.5 (aten)", 4_089_185_256),
        ("resnet50", "torchinfo 1.8.0", 4_089_238_376),
        ("resnet50", "calflops 0.3.2 (FLOPs)", 8_211_108_352),
        ("resnet50", "torchprofile 0.1.0", 4_100_300_288),
        ("resnet50", "torchscan 0.2.0", 4_111_916_032),
        ("mobilenet_v2", "fvcore 0.1.5", 314_193_216),
        ("vit_b_16", "ultralytics-thop 2.2.3", 17_595_694_944),
        ("vit_b_16", "thop 0.1.1", 11_286_254_592),
        ("vit_b_16", "ptflops 0.7.5", 17_606_030_584),
        ("vit_b_16", "ptflops 0.7.5 (aten)", 16_864_992_232),
        ("vit_b_16", "fvcore 0.1.5", 16_867_412_736),
        ("vit_b_16", "FlopCounterMode", 2 * 17_563_828_224),
        ("vit_b_16", "FlopCounterMode, CPU", 2 * 16_848_500_736),
        ("vit_b_16", "FlopCounterMode, CPU, no_grad", 2 * 11_271_124_992),
    ],
)
def test_known_models_to_the_digit(
    known: dict[str, Source], model: str, entry: str, count: int
) -> None:
    assert printed_by(entry, known[model].quantities) == count


def test_quantities_are_seen_only_where_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    model = MODELS["encoder"]()
    monkeypatch.setattr(CallObserver, "__torch_function__", None)
    report = audit(model, IMAGE, verify=False)
    assert report.extra is None
    with pytest.raises(DscalcError, match="cannot run"):
        audit(model, IMAGE, verify=False, observe=CallObserver)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: nn.MaxPool2d((2, 2))(x[0]),
        lambda x: nn.AdaptiveAvgPool2d((None, 1))(x[0]),
        lambda x: nn.MaxPool2d(3, ceil_mode=True, return_indices=True, dilation=2)(x)[0],
        lambda x: nn.BCELoss(torch.ones(8))(x.sigmoid(), x.sigmoid()),
        lambda x: torch.matmul(input=x, other=x.transpose(2, 3)),
        lambda x: torch.bmm(x[0], mat2=x[0].transpose(1, 2)),
        lambda x: torch.mv(x[0, 0], x[0, 0, 0]),
        lambda x: torch.mean(x),
        lambda x: nn.PReLU()(x.mean()),
    ],
)
def test_what_counters_see_stops_no_model(call: Callable[[torch.Tensor], torch.Tensor]) -> None:
    model = Calling(lambda m, x: call(m.conv(x)), conv=nn.Conv2d(3, 8, 1))
    image = 1, 3, 8, 8
    plain = audit(model, image, verify=False)
    assert audit(model, image, verify=False, observe=CallObserver).total == plain.total


@pytest.mark.parametrize("kernel", [2, (2, 2)])
def test_a_pool_of_an_image_without_a_batch_has_all_its_axes(kernel: int | tuple[int, int]) -> None:
    found = audit(nn.AvgPool2d(kernel), (8, 4, 4), observe=CallObserver).extra
    assert found is not None
    assert found["module.avg_pool.taps"] == found["module.avg_pool.windows"] == 8 * 4 * 4
    assert found["module.avg_pool.out"] == 8 * 2 * 2


def test_a_network_says_what_it_lists() -> None:
    found = row_quantities(load_network("mobilenet_v2"))
    assert printed_by("ptflops 0.7.5 (aten)", found) == 300_774_272
    assert printed_by("fvcore 0.1.5", found) == 300_774_272 + 62_720  # the global pool's inputs
    assert printed_by("ptflops 0.7.5", found) is None  # which counts activations


# Which way of counting gives a number


@pytest.mark.parametrize(
    ("model", "number", "unit", "expected"),
    [
        # ResNet-50: 3.8 G of its paper, 4.09 and 4.12 of tools.
        ("resnet50", "3.8G", "macs", {"ResNet-50 of its paper": 3_857_973_248}),
        ("resnet50", "4.09G", "macs", {"MACs alone": 4_089_184_256}),
        ("resnet50", "4.12G", "macs", {"ptflops 0.6.9": 4_121_925_096}),
        # A pruning counter.
        ("resnet50", "8.2120e9", "flops", {"rethinking-network-pruning": 8_212_012_520}),
        # MobileNetV2: TF-slim's further convolution, or fvcore's norms.
        (
            "mobilenet_v2",
            "314M",
            "macs",
            {"MobileNetV2 of TF-slim": 313_619_328, "fvcore 0.1.5": 314_193_216},
        ),
        # Twice the MACs.
        ("deit_s", "9.2G", "flops", {"FlopCounterMode": 2 * 4_598_882_304}),
        ("deit_s", "9.2G", "macs", {"FlopCounterMode": 2 * 4_598_882_304}),
        # Attention and its projections lost; and all of them, cut short.
        ("vit_b_16", "11.3G", "macs", {"thop 0.1.1": 11_286_254_592}),
        ("vit_b_16", "17.5G", "macs", {"MACs alone": 17_563_828_224}),
        # ECANet: ResNet-50 as in its paper; and the parameters in powers of 1024.
        ("resnet50", "3.86G", "macs", {"ResNet-50 of its paper": 3_857_973_248}),
        ("resnet50", "24.37M", "macs", {"params, not MACs": 25_557_032}),
    ],
)
def test_public_disputes(
    known: dict[str, Source], model: str, number: str, unit: Unit, expected: dict[str, int]
) -> None:
    found = counters(explained(known[model], number, unit))
    assert expected.items() <= found.items()
    assert bool(found) == bool(expected)


@pytest.fixture(scope="module")
def sources() -> Callable[[dict[str, Any]], Source]:
    """What may have been counted in a dispute: of a model built here, or as it was recorded."""
    built: dict[str, Source] = {}

    def source(dispute: dict[str, Any]) -> Source:
        if "built" not in dispute:
            return Source("", Counter(_RECORDED["quantities"][dispute["model"]]))
        key = json.dumps(dispute["built"])
        if key not in built:
            name, *args = dispute["built"]
            with torch.device("meta"):
                model = getattr(architectures, name)(*args)
            built[key] = Source("", *seen(model, dispute["size"]))
        return built[key]

    return source


def called(dispute: dict[str, Any]) -> str:
    return f"{dispute['model']} {dispute['number']}"


@pytest.mark.parametrize("dispute", DISPUTES, ids=called)
def test_a_counter_by_name_gives_a_published_total(
    dispute: dict[str, Any], sources: Callable[[dict[str, Any]], Source]
) -> None:
    answers = explained(sources(dispute), dispute["number"])
    named = {one.candidate.by: list(one.candidate.besides) for one in answers}
    assert {by: named.get(by) for by in dispute["by"]} == dict.fromkeys(
        dispute["by"], dispute["assumes"]
    )


@pytest.mark.parametrize("dispute", [one for one in DISPUTES if "package" in one], ids=called)
def test_a_published_total_of_the_package_itself(
    dispute: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    package, name = dispute["package"], dispute["model"]
    pytest.importorskip(package)
    target, kwargs = {
        "torchvision": (f"torchvision.models:{name}", {}),
        "timm": ("timm:create_model", {"model_name": name}),
        "efficientnet_pytorch": (
            "efficientnet_pytorch:EfficientNet.from_name",
            {"model_name": name},
        ),
    }[package]
    size = f"3x{dispute['size']}x{dispute['size']}"
    args = [target, "--kwargs", json.dumps(kwargs), "--input", size, "-f", "json"]
    assert main(["model", *args, "--explain", dispute["number"]]) == 0
    answers = json.loads(capsys.readouterr().out)["explain"]["answers"]
    assert set(dispute["by"]) <= {answer["by"] for answer in answers}


@pytest.mark.parametrize("entry", ENTRIES)
def test_each_counter_is_found_again_without_the_classifier(
    known: dict[str, Source], entry: str
) -> None:
    source = known["mobilenet_v2"]
    whole, headless = printed_by(entry, source.quantities), without(source.quantities, "head")
    count = printed_by(entry, headless)
    assert whole is not None
    assert count is not None
    assert whole - count >= 1_280_000 * (entry != "torchinfo 1.8.0")
    found = [one.candidate for one in explained(source, str(count)) if one.candidate.by == entry]
    assert [one.besides for one in found] == [("without the classifier",)]
    assert found[0].total == count


def test_torchstat_of_the_model_in_its_readme() -> None:
    """190.58MMAdd and 96.0MFlops: a sum of n products has n - 1 additions."""

    def run(m: Any, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(F.max_pool2d(m.conv1(x), 2))
        x = F.relu(F.max_pool2d(m.drop(m.conv2(x)), 2)).flatten(1)
        out: torch.Tensor = m.fc2(F.relu(m.fc1(x)))
        return out

    model = Calling(
        run, conv1=nn.Conv2d(3, 10, 5), conv2=nn.Conv2d(10, 20, 5), drop=nn.Dropout2d(),
        fc1=nn.Linear(56_180, 50), fc2=nn.Linear(50, 10),
    )  # fmt: skip
    found = seen(model)[0]
    assert printed_by("torchstat 0.0.7 (MAdd)", found) == 190_578_940
    assert printed_by("torchstat 0.0.7", found) == 95_998_220


def test_torchstat_keeps_the_last_call_of_a_module() -> None:
    """It printed 4,118,537,216 and 8,219,637,272 for torchvision's ResNet-50."""
    with torch.device("meta"):
        found = seen(architectures.resnet50())[0]
    assert printed_by("torchstat 0.0.7", found) == 4_118_537_216
    assert printed_by("torchstat 0.0.7 (MAdd)", found) == 8_219_637_272


def test_what_was_added_up_in_float32_is_known_again(known: dict[str, Source]) -> None:
    """thop of 2019 printed 4,135,789,568 for ResNet-50, thop of early 2020 exactly the sum."""
    assert "thop of 2019" in counters(explained(known["resnet50"], "4135789568"))
    assert counters(explained(known["resnet50"], "4135789570")) == {}  # it is no float32
    assert counters(explained(known["resnet50"], "4135789592")) == {"thop of 2019": 4_135_789_592}
    assert counters(explained(known["resnet50"], "4111512577")) == {}


def test_a_classifier_is_the_last_linear_layer_and_no_other() -> None:
    def heads(*layers: nn.Module) -> int:
        return seen(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), *layers), 2)[0]["head.linear"]

    assert heads(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 10)) == 8 * 10
    assert heads(nn.Linear(16, 8), nn.Linear(8, 8), nn.Linear(8, 8)) == 8 * 8
    assert heads(nn.Linear(16, 8)) == 16 * 8
    assert heads() == 0


def test_two_differences_at_once() -> None:
    """SHViT-S4: fvcore at 224 prints 789 M, its paper 986 M at 256."""
    at_224 = Counter({
        "conv": 781_246_992, "linear": 448_000, "matmul": 1_651_048,
        "F.batch_norm.affine": 2_867_224, "F.group_norm.affine": 33_912,
        "F.adaptive_avg_pool.in": 7_168,
    })  # fmt: skip
    at_256 = Counter({"conv": 983_247_888, "linear": 448_000, "matmul": 2_521_072})
    own, other = Source("", at_224), Source("an input of 256x256", at_256, assumes=True)
    assert counters(explained(own, "789M"))["fvcore 0.1.5"] == 789_257_216
    few = find_explanation(read_number("986M", "--explain"), [own], more=[other])
    assert not few.answers
    assert few.elsewhere[0].total == 986_216_960
    whole = find_explanation(read_number("986216960", "--explain"), [own], more=[other])
    assert {answer.verdict for answer in whole.answers} == {"explained"}
    assert whole.answers[0].candidate.of == "an input of 256x256"


@pytest.mark.parametrize("answers", [1, 0])
def test_other_sizes_are_looked_at_only_where_nothing_else_explains(
    known: dict[str, Source], answers: int
) -> None:
    looked = []

    def more() -> Any:
        looked.append(1)
        yield from ()

    number = "4111512576" if answers else "4111512577"
    found = find_explanation(read_number(number, "--explain"), [known["resnet50"]], more=more())
    assert bool(found.answers) == bool(answers)
    assert bool(looked) != bool(answers)


def test_what_comes_nearest_where_nothing_fits(known: dict[str, Source]) -> None:
    found = find_explanation(read_number("4.2G", "--explain"), [known["resnet50"]])
    assert not found.answers
    assert found.nearest[0].total == 4_133_742_592


# How easily a number is explained falsely


def near(source: Source, digits: int, draw: random.Random) -> str:
    """A random number within 3% of the MACs, to so many digits; 0 is all of them."""
    macs = sum(value for _, value in MACS.summands(source.quantities) or ())
    value = draw.randint(macs * 97 // 100, macs * 103 // 100)
    return f"{value:.{digits - 1}e}" if digits else str(value)


_OF_NAMED = {3: 0.15, 4: 0.022, 5: 0.0025, 6: 0.00025}


@pytest.mark.parametrize("digits", _OF_NAMED)
def test_few_numbers_of_so_many_digits_are_what_a_counter_prints(
    known: dict[str, Source], digits: int
) -> None:
    """Of those within 3% of the MACs, the share that a counter rounds to, with no assumption."""
    shares = []
    for source in known.values():
        macs = sum(value for _, value in MACS.summands(source.quantities) or ())
        example = read_number(f"{macs:.{digits - 1}e}", "--explain")._replace(digits=4)
        values = [one.value for one in _candidates(source, example, "macs", 0)]
        near = [value for value in values if abs(value - macs) <= Fraction(3, 100) * macs]
        printed = {read_number(f"{int(value):.{digits - 1}e}", "--explain") for value in near}
        shares.append(sum(number.step for number in printed) / (Fraction(6, 100) * macs))
    assert sum(shares) / len(shares) <= _OF_NAMED[digits]


# Shares of random numbers within 3% of the MACs that at most one convention (4 digits), at most two
# (5, 6) or three (all) explained when conventions were free; now that includes every counter.
_OF_ALL = {4: 0.05, 5: 0.038, 6: 0.007, 0: 0}


@pytest.mark.parametrize("unit", ["macs", "flops"])
@pytest.mark.parametrize("digits", [3, *_OF_ALL])
def test_random_numbers_are_rarely_explained(
    known: dict[str, Source], digits: int, unit: Unit
) -> None:
    draw, tries = random.Random(f"{digits} {unit}"), 200
    verdicts: Counter[str] = Counter()
    for source in known.values():
        macs = sum(value for _, value in MACS.summands(source.quantities) or ())
        macs *= 2 if unit == "flops" else 1
        candidates = None
        for _ in range(tries):
            value = draw.randint(macs * 97 // 100, macs * 103 // 100)
            text = f"{value:.{digits - 1}e}" if digits else str(value)
            number = read_number(text, "--explain")
            if candidates is None:
                most = number.most_assumptions
                candidates = list(_candidates(source, number, unit, most))
            verdicts.update({answer.verdict for answer in _answers(number, candidates)[:1]})
    if digits == 3:
        assert set(verdicts) == {"consistent with"}
    else:
        assert sum(verdicts.values()) <= _OF_ALL[digits] * tries * len(known)
        assert verdicts["explained"] <= tries * len(known) / 100


def test_an_accident_is_as_likely_as_is_printed(known: dict[str, Source]) -> None:
    """Of every 5-digit number near the MACs of a model, those that are answered, and the odds."""
    source = known["mobilenet_v2"]
    middle = 30_077
    number = read_number("300.77M", "--explain")
    candidates = list(_candidates(source, number, "macs", number.most_assumptions))
    answered, odds = 0, Fraction(0)
    for digits in range(middle * 97 // 100, middle * 103 // 100):
        number = read_number(f"{digits / 100:.2f}M", "--explain")
        answered += bool(_answers(number, candidates))
        odds += chance(number, candidates, number.most_assumptions)
    assert answered <= odds
    assert answered >= odds / 3  # it is no looser than it need be, where counters print alike


# Numbers as people write them


@pytest.mark.parametrize(
    ("text", "value", "step", "digits"),
    [
        ("4133742592", 4_133_742_592, 0, 10),
        ("4,133,742,592", 4_133_742_592, 0, 10),
        ("4.13G", 4_130_000_000, 10_000_000, 3),
        ("4.130 g", 4_130_000_000, 1_000_000, 4),
        ("8.2120e9", 8_212_000_000, 100_000, 5),
        ("0.31B", 310_000_000, 10_000_000, 2),
        ("4.133.742.592", 4_133_742_592, 0, 10),
        ("4 133 742 592", 4_133_742_592, 0, 10),
        ("4'133'742'592", 4_133_742_592, 0, 10),
        ("1.82 GMac", 1_820_000_000, 10_000_000, 3),
        ("4,09 GMACs", 4_090_000_000, 10_000_000, 3),
        ("0,291 G", 291_000_000, 1_000_000, 3),
        ("360 MFLOPs", 360_000_000, 1_000_000, 3),
        ("4.1 BFLOPs", 4_100_000_000, 100_000_000, 2),
        ("~4.1 GigaFLOPs", 4_100_000_000, 100_000_000, 2),
        ("0.31 mega mult-adds", 310_000, 10_000, 2),
        ("30.94 Bn", 30_940_000_000, 10_000_000, 4),
        ("12 MMac", 12_000_000, 1_000_000, 2),
        ("568 MACs", 568, 0, 3),
        ("569 Mio", 569_000_000, 1_000_000, 3),
        ("42.5 thousand", 42_500, 100, 3),
        ("314 M mult-adds", 314_000_000, 1_000_000, 3),
        ("4.09x10^9", 4_090_000_000, 10_000_000, 3),
        ("4.09 \N{MULTIPLICATION SIGN} 10\N{SUPERSCRIPT NINE} FLOPs", 4_090_000_000, 10_000_000, 3),
        ("1,234.5 M", 1_234_500_000, 100_000, 5),
        ("97.8 MB", 97_800_000, 100_000, 3),
        ("93 MiB", 93 * 2**20, 2**20, 2),
        ("13.00M params", 13_000_000, 10_000, 4),
    ],
)
def test_a_number_keeps_its_digits(text: str, value: int, step: int, digits: int) -> None:
    number = read_number(text, "--explain")
    assert (number.value, number.step, number.digits) == (value, step, digits)


def test_a_comma_is_a_point_if_the_macs_or_flops_say_so() -> None:
    printed = read_number("4,089 GMACs", "--explain")
    in_g = printed._replace(value=Fraction(4_089_000_000), step=Fraction(1_000_000))
    for macs in (4_089_184_256, 2_044_592_128):
        assert printed.near(macs) == in_g
    assert printed.near(4_089_184_256_000) == printed
    for text in ("4,089", "4,089.0 G", "4,089,184 G", "4.089 G"):
        assert (whole := read_number(text, "--explain")).near(4_089_184_256) == whole


def test_a_number_without_a_letter_is_of_the_size_of_the_macs_or_flops() -> None:
    printed = read_number("4.1", "--explain")
    in_g = printed._replace(
        text="4.1G", value=Fraction(4_100_000_000), step=Fraction(100_000_000), thousands=3
    )
    for macs in (3_200_000_000, 4_089_184_256, 5_800_000_000, 2_050_000_000):
        assert printed.near(macs) == in_g
    assert printed.near(4_089_184).text == "4.1M"
    assert printed.near(10**9) == printed  # no power of 1000 is within 30%
    for text in ("4.1M", "4.1 MACs", "1000.5", "4"):
        number = read_number(text, "--explain")
        assert number.near(4_089_184_256) == number


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("4.13G", ""), ("30.94 Bn", ""), ("4.09x10^9", ""), ("4.13 GMac", "macs"),
        ("4.13G MACs", "macs"), ("300 MAdds", "macs"), ("4.09 GFLOPs", "flops"),
        ("8e9 FLOPs", "flops"), ("7 GOPs", "flops"), ("25.6 M params", "params"),
        ("3.4 M parameters", "params"), ("97.8 MB", "bytes"), ("93 MiB", "bytes"),
    ],
)  # fmt: skip
def test_a_number_says_what_it_counts(text: str, unit: str) -> None:
    assert read_number(text, "--explain").unit == unit


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("x", "must be a number such as 4133742592 or 4.13G"),
        ("", "must be a number"),
        ("1/8", "must be a number"),
        ("1e999", "must be a number"),
        ("1" * 5000, "must be a number"),
        ("\N{FULLWIDTH DIGIT FOUR}G", "must be a number"),
        ("-4.13G", "must be greater than 0"),
        ("0", "must be greater than 0"),
        ("1,28,800", "must be a number"),
        (
            "4.1Q",
            "unknown unit 'Q', got '4.1Q'; choose from K M G T P, B or Bn, x10^9, each with MACs, "
            "FLOPs or params; MB or MiB of weights",
        ),
        ("4.1 GB/s", "unknown unit 'GB/s'"),
    ],
)
def test_bad_numbers(text: str, complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["8", "16", "3", "10", f"--explain={text}"]) == 2
    found = capsys.readouterr().err
    assert complaint in found
    assert found.count("\n") == 1


# On the command line


def asked(*args: str) -> int:
    return main(["8", "16", "3", "10", "--bias", *args])


def test_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert asked("--explain", "116800") == 0
    found = capsys.readouterr().out
    assert "116,800 = 115,200 convolutions + 1,600 biases (1 per output): as" in found
    assert asked("--explain", "99999") == 1
    assert "the number of params (1,168 here) settles most of these" in capsys.readouterr().out


def test_counters_that_print_the_same_share_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert asked("--explain", "116800") == 0
    title, _, head, _, line, _, *notes = capsys.readouterr().out.splitlines()
    assert title.startswith("116800, as MACs of")
    assert head.split("  ")[-2:] == ["verdict", "by accident"]
    assert re.split("  +", line.strip()) == [
        "ptflops 0.7.5 and 12 more", "116,800", "explained", "0.03%"
    ]  # fmt: skip
    said = " ".join(notes)
    assert "as ptflops 0.7.5, ptflops 0.7.5 (aten), torchinfo 1.8.0, thop 0.0.31, thop of" in said


@pytest.mark.parametrize(
    ("number", "said"),
    [
        ("0.1152 MFLOPs", "115,200 MACs"),  # as it is often called
        ("0.2304 MMac", "230,400 FLOPs"),
    ],
)
def test_a_unit_that_is_said_is_taken_and_the_other_is_named(
    number: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert asked("--explain", number) == 0
    found = capsys.readouterr().out
    label = "FLOPs" if "FLOPs" in number else "MACs"
    assert found.startswith(f"{number}, as {label} of")
    assert said in found
    assert f"the number says {label}; in MACs a multiply-accumulate is 1, in FLOPs 2" in found


def test_weights_in_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    assert asked("--explain", "4.672 KB") == 0
    assert "4,672 bytes of float32 weights, for the standard convol" in capsys.readouterr().out
    assert asked("--explain", "2.28 KiB") == 0
    assert "2,336 bytes of float16 weights" in capsys.readouterr().out
    assert asked("--explain", "4.7 GB") == 1
    assert asked("--explain", "2.228 KiB") == 1  # 2,336 bytes, were 1024 taken for 1000 twice


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        # The sizes of torchvision's files, in its documentation.
        ("resnet50", "97.8 MB"), ("resnet152", "230.5 MB"), ("mobilenet_v2", "13.6 MB"),
        ("vgg16", "527.8 MB"), ("squeezenet1_0", "4.8 MB"),
    ],
)  # fmt: skip
def test_a_file_of_weights_holds_more_than_weights(name: str, printed: str) -> None:
    with torch.device("meta"):
        source = Source("", *seen(getattr(architectures, name)()))
    assert "a file of weights" in counters(explained(source, printed))
    assert "a file of weights" not in counters(explained(source, "99.9 MB"))


def test_explained_as_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert asked("--explain", "22.4K", "-f", "json") == 0
    found = json.loads(capsys.readouterr().out)["explain"]
    answer = next(each for each in found["answers"] if each["by"] == "torchinfo 1.8.0")
    assert answer["verdict"] == "consistent with"
    assert answer["of"] == "separable"
    assert answer["count"] == sum(each["count"] for each in answer["summands"]) == 22_400


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (["--explain", "1G", "--get", "mac_ratio"], "--explain prints its own answer; drop --get"),
        (["--explain", "1G", "--cite"], "--explain prints its own answer; drop --cite"),
        (["--explain", "1G", "-f", "csv"], "table, markdown, svg or json"),
        (["--explain", "1G", "--batch", "4"], "one sample, as other counters do; drop --batch"),
        (["--explain", "1G", "--peers"], "--explain prints its own answer; drop --peers"),
        (["--peers", "--unit", "flops"], "--peers prints what each counter calls its own; drop"),
        (["--cite", "-f", "json"], "--cite prints a sentence"),
    ],
)
def test_what_does_not_go_together(
    args: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert asked(*args) == 2
    assert complaint in capsys.readouterr().err


def test_a_grid_has_no_number_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["8", "16,32", "3", "10", "--explain", "1G"]) == 2
    assert "--explain takes one layer" in capsys.readouterr().err


def test_a_network_at_another_size(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["network", "mobilenet_v1", "--explain", "290,675,200", "-f", "json"]) == 0
    found = json.loads(capsys.readouterr().out)["explain"]
    assert found["macs"] == 568_740_352
    [answer, *_] = found["answers"]
    assert (answer["by"], answer["of"]) == ("MACs alone", "an input of 160x160")


@pytest.mark.parametrize(("number", "read"), [("116.8", "116.8K"), ("0.1168", "0.1168M")])
def test_a_unit_that_is_left_out_is_added(
    number: str, read: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert asked("--explain", number) == 0
    assert capsys.readouterr().out.startswith(f"{read}, as MACs of")
    assert asked("--explain", "7.5") == 1
    assert capsys.readouterr().out.startswith("7.5, as MACs of")


def test_a_network_is_cited_with_its_scale_and_input(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["network", "mobilenet_v1", "--width-multiplier", "0.5", "--cite", "-q"]) == 0
    found = capsys.readouterr().out
    assert found.startswith("MobileNetV1, 1.0, 224, weights only (Howard et al., 2017,")
    assert "Table 1; here width multiplier 1/2) has 149,497,088 MACs" in found
    assert "params for an input of 1x3x224x224: MACs are" in found


def test_a_network_is_cited_as_what_it_is_rewritten_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net = tmp_path / "net.csv"
    net.write_text("kind,in_channels,out_channels,kernel_size,input_size\nconv,3,64,3,224\n")
    assert main(["network", str(net), "--as", "separable", "--batch", "2", "--cite", "-q"]) == 0
    found = capsys.readouterr().out
    assert found.startswith(f"{net} (here batch 2) has 173,408,256 MACs")
    assert "1,728 params, and as separable 21,977,088 MACs and 219 params for an input" in found
    assert main(["network", str(net), "--cite", "-q"]) == 0
    assert "1,728 params for an input of 1x3x224x224" in capsys.readouterr().out


def test_cited(capsys: pytest.CaptureFixture[str]) -> None:
    assert asked("--cite") == 0
    found = capsys.readouterr().out
    assert found.startswith("A convolution, 8 -> 16 channels, 3x3 kernel,")
    assert "has 115,200 MACs (230,400 FLOPs at 2 for each MAC) and 1,168 params, and as" in found
    assert "and as separable 20,000 MACs and 224 params: MACs are" in found
    assert "exactly as fvcore" in found
    assert asked("--cite", "--no-verify") == 0
    assert "by formula" in capsys.readouterr().out


@pytest.fixture
def model(here: Path) -> list[str]:
    (here / "small_nets.py").write_text(
        "from torch import nn\n"
        "def net():\n"
        "    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())\n"
    )
    return ["model", "small_nets.py:net", "--input", "3x16x16"]


def test_peers_of_a_model(model: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*model, "--peers", "-f", "json"]) == 0
    peers = {each["counter"]: each for each in json.loads(capsys.readouterr().out)["peers"]}
    assert all(each["differences"] == [] for each in peers.values() if each["count"] is None)
    assert peers["fvcore 0.1.5"]["count"] == 55_296 + 2 * 2_048
    assert peers["fvcore 0.1.5"]["differences"] == [
        {"what": "batch norm (2 per element)", "count": 4_096}
    ]
    assert main([*model, "--peers"]) == 0
    said = capsys.readouterr().out
    assert [line.split() for line in said.splitlines() if line.startswith("fvcore 0.1.5 and")] == [
        ["fvcore", "0.1.5", "and", "2", "more", "59,392", "MACs", "+7.41%"]
    ]
    assert "and torchscan 0.2.0: + 4,096 batch norm (2 per element)" in " ".join(said.split())


def test_peers_of_a_layer(capsys: pytest.CaptureFixture[str]) -> None:
    assert asked("--peers", "-f", "json") == 0
    peers = {each["counter"]: each for each in json.loads(capsys.readouterr().out)["peers"]}
    assert peers["fvcore 0.1.5"]["count"] == 115_200
    assert peers["torchinfo 1.8.0"]["count"] == 115_200 + 1_600
    assert peers["FlopCounterMode"]["count"] == 2 * 115_200
    assert peers["thop 0.0.31"]["assumes"] == "an older counter"


def test_peers_of_a_network(capsys: pytest.CaptureFixture[str]) -> None:
    """Its pool is known and its activations are not."""
    assert main(["network", "mobilenet_v1", "--peers", "-f", "json"]) == 0
    peers = {each["counter"]: each for each in json.loads(capsys.readouterr().out)["peers"]}
    assert peers["fvcore 0.1.5"]["count"] == 568_740_352 + 50_176
    assert peers["ptflops 0.7.5 (aten)"]["count"] == 568_740_352
    assert peers["mmcv 1.7"]["count"] is None
    assert main(["network", "mobilenet_v1", "--peers"]) == 0
    said = capsys.readouterr().out
    assert "ptflops 0.7.5 (aten) and 2 more  " in said
    assert "ptflops 0.7.5 (aten), torchinfo 1.8.0 and calflops 0.3.2: the same" in said
    assert main(["network", "mobilenet_v1", "resnet50", "--peers"]) == 2
    assert "--peers takes one network or model; give only one" in capsys.readouterr().err


def test_a_network_without_its_classifier(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["network", "mobilenet_v1", "--explain", "567716352", "-f", "json"]) == 0
    answers = json.loads(capsys.readouterr().out)["explain"]["answers"]
    assert answers[0]["conventions"] == ["without the classifier"]


def test_what_is_not_known_of_a_peer_differs_by_nothing() -> None:
    peers = peers_data(Counter(conv=72, recurrent=40))["peers"]
    unknown = [each for each in peers if each["count"] is None]
    assert 0 < len(unknown) < len(peers)
    assert [each["differences"] for each in unknown] == [[]] * len(unknown)


def test_weights_of_modules_that_do_not_run_are_told_apart(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """GoogLeNet: 13.00M with its auxiliary heads, 6.62M without."""
    (here / "idle_nets.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Sequential):\n"
        "    def __init__(self):\n"
        "        super().__init__(nn.Linear(8, 8))\n"
        "        self.aux = nn.Linear(100, 2)\n"
        "    def forward(self, x):\n"
        "        return self[0](x)\n"
    )
    model = ["model", "idle_nets.py:Net", "--input", "8", "--explain"]
    assert main([*model, "274 params"]) == 0
    said = "274 params, 202 of them in modules that do not run, such as auxiliary heads"
    assert said in " ".join(capsys.readouterr().out.split())
    assert main([*model, "72 params"]) == 0
    said = "72 = 274 params - 202 in modules that do not run, such as auxiliary heads"
    assert said in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("option", [["--peers"], ["--explain", "1G"]])
@pytest.mark.parametrize(
    ("module", "noted"),
    [
        ("nn.LSTM(16, 8)", True),
        ("nn.LSTM(16, 8, batch_first=True)", False),
        ("nn.TransformerEncoderLayer(16, 2)", True),
        ("nn.TransformerEncoderLayer(16, 2, batch_first=True)", False),
    ],
)
def test_a_note_where_the_first_axis_is_the_sequence(
    module: str,
    noted: bool,
    option: list[str],
    here: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (here / "sequence_nets.py").write_text(
        f"import torch\nfrom torch import nn\nnet = {module}\ninputs = (torch.zeros(10, 1, 16),)\n"
    )
    note = "batch_first=False (1 module) reads the first axis as the sequence, and --input puts the"
    main(["model", "sequence_nets.py:net", "--input", "10x16", *option])
    assert (note in " ".join(capsys.readouterr().out.split())) == noted
    main(["model", "sequence_nets.py:net", "--inputs", "sequence_nets.py:inputs", *option])
    assert note not in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("groups", [1, 2])
def test_alexnet_of_its_paper_was_made_for_two_gpus(groups: int) -> None:
    def conv(c_in: int, c_out: int, kernel: int, groups: int = 1, **options: int) -> nn.Module:
        return nn.Conv2d(c_in, c_out, kernel, groups=groups, **options)

    with torch.device("meta"):
        model = nn.Sequential(
            conv(3, 96, 11, stride=4), nn.MaxPool2d(3, 2),
            conv(96, 256, 5, groups, padding=2), nn.MaxPool2d(3, 2),
            conv(256, 384, 3, padding=1), conv(384, 384, 3, groups, padding=1),
            conv(384, 256, 3, groups, padding=1), nn.MaxPool2d(3, 2), nn.Flatten(),
            nn.Linear(9216, 4096), nn.Linear(4096, 4096), nn.Linear(4096, 1000),
        )  # fmt: skip
    found = counters(explained(Source("", *seen(model, 227)), "724M"))
    assert found["AlexNet of its paper" if groups == 1 else "MACs alone"] == 724_406_816


def test_a_model_at_another_size(model: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    macs = 55_296 * 256**2 // 16**2
    assert main([*model, "--explain", str(macs), "-f", "json"]) == 0
    [answer, *_] = json.loads(capsys.readouterr().out)["explain"]["answers"]
    assert (answer["by"], answer["of"]) == ("MACs alone", "an input of 256x256")
    assert main([*model, "--cite"]) == 0
    assert "for an input of 1x3x16x16" in capsys.readouterr().out


def test_an_explanation_says_what_was_asked(known: dict[str, Source]) -> None:
    found = find_explanation(read_number("4.13G", "--explain"), [known["resnet50"]])
    assert isinstance(found, Explanation)
    assert found.macs == 4_089_184_256
    assert {answer.verdict for answer in found.answers} == {"consistent with"}


def test_digits_that_are_dropped_end_before_the_next():
    number = read_number("3.8G", "the number")
    assert number.truncates(Fraction(3_800_000_000))
    assert number.truncates(Fraction(3_899_999_999))
    assert not number.truncates(Fraction(3_900_000_000))
