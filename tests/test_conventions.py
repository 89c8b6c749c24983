"""Other people's numbers: what counters print, and which way of counting gives a number."""

import json
import random
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import architectures
import pytest
import torch
from counted import IMAGE, MODELS, PRINTED
from hypothesis import given
from hypothesis import strategies as st
from layers import Calling
from torch import nn

from dscalc.cli import main
from dscalc.core.fields import Unit
from dscalc.errors import DscalcError
from dscalc.inputs.network_file import load_network
from dscalc.peers import conventions
from dscalc.peers.conventions import (
    MACS,
    TABLE,
    Explanation,
    Match,
    Source,
    chance,
    find_explanation,
    read_number,
)
from dscalc.peers.observer import CallObserver
from dscalc.peers.quantities import Quantities
from dscalc.peers.view import peers_data
from dscalc.pytorch import audit

ENTRIES = {entry.name: entry for entry in TABLE}


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
    claimed = {entry: printed_by(entry, found) for entry in ENTRIES}
    assert {entry: count for entry, count in claimed.items() if count is not None} == {
        entry: PRINTED[name][entry] for entry, count in claimed.items() if count is not None
    }
    assert len([count for count in claimed.values() if count is not None]) >= 11


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
    from dscalc.peers.quantities import row_quantities

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


def test_no_convolution_counted_at_all() -> None:
    """EfficientNet-B0 of EfficientNet-PyTorch, whose convolutions are a class of its own."""
    found = Counter({
        "conv": 384_534_752, "linear": 1_280_000, "F.batch_norm.affine": 6_738_336,
        "F.adaptive_avg_pool.in": 62_720,
    })  # fmt: skip
    [answer] = explained(Source("", found), "14819392")
    assert answer.verdict == "explained"
    assert answer.candidate.conventions == (
        "batch norm (2 per element)",
        "pools (1 per input), or global pools (1 per input)",
        "convolutions left out",
    )


def test_two_differences_at_once() -> None:
    """SHViT-S4: fvcore at 224 prints 789 M, its paper 986 M at 256."""
    at_224 = Counter({
        "conv": 781_246_992, "linear": 448_000, "matmul": 1_651_048,
        "F.batch_norm.affine": 2_867_224, "F.group_norm.affine": 33_912,
        "F.adaptive_avg_pool.in": 7_168,
    })  # fmt: skip
    at_256 = Counter({"conv": 983_247_888, "linear": 448_000, "matmul": 2_521_072})
    own, other = Source("", at_224), Source("an input of 256x256", at_256, 0, 1)
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


_MOST = {3: 0.15, 4: 0.022, 5: 0.0025, 6: 0.00025}


@pytest.mark.parametrize("digits", _MOST)
def test_few_numbers_of_so_many_digits_are_what_a_counter_prints(
    known: dict[str, Source], digits: int
) -> None:
    """Of those within 3% of the MACs, the share that a counter rounds to, with no assumption."""
    shares = []
    for source in known.values():
        macs = sum(value for _, value in MACS.summands(source.quantities) or ())
        example = read_number(f"{macs:.{digits - 1}e}", "--explain")
        values = [one.value for one in conventions._candidates(source, example, "macs", 0)]
        near = [value for value in values if abs(value - macs) <= Fraction(3, 100) * macs]
        printed = {read_number(f"{int(value):.{digits - 1}e}", "--explain") for value in near}
        shares.append(sum(number.step for number in printed) / (Fraction(6, 100) * macs))
    assert sum(shares) / len(shares) <= _MOST[digits]


@pytest.mark.parametrize("digits", [3, 4, 5, 6, 0])
def test_mixtures_are_found_by_accident_no_oftener_than_is_printed(
    known: dict[str, Source], digits: int
) -> None:
    draw, found, chances = random.Random(digits), 0, Fraction(0)
    for source in known.values():
        candidates = None
        for _ in range(25):
            number = read_number(near(source, digits, draw), "--explain")
            most = number.most_conventions
            if candidates is None:
                candidates = list(conventions._candidates(source, number, "macs", most))
            answers = conventions._answers(number, candidates)
            found += any(answer.candidate.cost > 0 for answer in answers)
            chances += chance(number, candidates, most)
    assert found <= chances


@given(data=st.data(), digits=st.sampled_from([0, 3]))
def test_any_two_conventions_are_found_again(
    known: dict[str, Source], data: st.DataObject, digits: int
) -> None:
    source = known[data.draw(st.sampled_from(["resnet50", "mobilenet_v2", "vit_b_16"]))]
    free = conventions._free(source.quantities)
    chosen = data.draw(st.lists(st.sampled_from(free), max_size=2, unique_by=lambda one: one.group))
    macs = sum(value for _, value in MACS.summands(source.quantities) or ())
    count = macs + sum(one.value for one in chosen)
    if count <= 0:
        return
    number = read_number(f"{count:.2e}" if digits else str(count), "--explain")
    answers = find_explanation(number, [source]).answers
    few = number.most_conventions < len(chosen)
    assert few or count in [answer.candidate.total for answer in answers]


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
    ],
)
def test_a_number_keeps_its_digits(text: str, value: int, step: int, digits: int) -> None:
    number = read_number(text, "--explain")
    assert (number.value, number.step, number.digits) == (value, step, digits)


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
        ("4.13Q", "unknown unit 'Q'"),
        ("4.13GFLOPs", "say --unit flops"),
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
def model(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small_nets.py").write_text(
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
    assert "fvcore 0.1.5: + 4,096 batch norm (2 per element)" in capsys.readouterr().out


def test_what_is_not_known_of_a_peer_differs_by_nothing() -> None:
    peers = peers_data(Counter(conv=72, recurrent=40))["peers"]
    unknown = [each for each in peers if each["count"] is None]
    assert 0 < len(unknown) < len(peers)
    assert [each["differences"] for each in unknown] == [[]] * len(unknown)


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
