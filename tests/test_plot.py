"""Pictures of grids and networks: what is in them, and when there is none."""

import sys
from fractions import Fraction
from html import unescape
from itertools import combinations, pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text

import dscalc.report
from dscalc.core.blocks import DEFAULTS, STANDARD, Block
from dscalc.core.conv import Conv
from dscalc.core.row import layer_row
from dscalc.inputs.network_file import load_network
from dscalc.report.drawing import COLOURS

GRID = "64 32:1024:x2 3,5,7 14"
NETWORK = "network mobilenet_v1 --no-verify"
BEGINS = {"png": b"\x89PNG\r\n\x1a\n", "svg": b"<?xml ", "pdf": b"%PDF-1."}

pictures = pytest.mark.parametrize("args", [GRID, NETWORK], ids=["grid", "network"])


def words(path):
    """The labels in an SVG: matplotlib draws letters as paths, and says in comments what they are.

    Where letters are text instead, that counts too.
    """
    parser = ElementTree.XMLParser(target=ElementTree.TreeBuilder(insert_comments=True))
    picture = ElementTree.parse(path, parser).getroot()
    assert picture.tag == "{http://www.w3.org/2000/svg}svg"
    return [unescape(part.text.strip()) for part in picture.iter() if (part.text or "").strip()]


@pytest.mark.parametrize("kind", BEGINS)
@pytest.mark.parametrize("spelling", [str.upper], ids=["upper"])
@pictures
def test_the_ending_tells_the_kind_of_picture(args, kind, spelling, run, tmp_path):
    path = tmp_path / f"picture.{spelling(kind)}"
    result = run(f"{args} --plot {path}")
    assert result == run(args)
    assert result.code == 0
    assert path.read_bytes().startswith(BEGINS[kind])
    assert path.stat().st_size > 5000
    assert list(tmp_path.iterdir()) == [path]


@pictures
@pytest.mark.parametrize("form", ["csv", "json", "markdown"])
def test_a_picture_comes_beside_the_report_in_any_format(args, form, run, tmp_path):
    picture, report = tmp_path / "picture.svg", tmp_path / "report"
    assert run(f"{args} -f {form} -o {report} --plot {picture}") == (0, "", "")
    assert report.read_text("utf-8") == run(f"{args} -f {form}").stdout
    assert words(picture)


def test_a_picture_comes_beside_a_verdict(run, tmp_path):
    path = tmp_path / "picture.svg"
    result = run(*GRID.split(), "--plot", str(path), "--assert", "mac_ratio > 1", "-q")
    assert result[::2] == (1, "")
    assert words(path)


@pytest.mark.parametrize("kind", BEGINS)
@pictures
def test_the_same_rows_make_the_same_file(args, kind, run, tmp_path):
    first, second = tmp_path / f"first.{kind}", tmp_path / f"second.{kind}"
    for path in (first, second):
        run(f"{args} --plot {path}")
    assert first.read_bytes() == second.read_bytes()


def test_colours_differ_in_grey_print_and_for_every_colour_vision():
    """Machado et al., 2009, "A physiologically-based model for simulation of color vision
    deficiency", Table 1: full protanopia, deuteranopia and tritanopia. Lightness is CIE L*.
    """
    visions = [
        np.eye(3),
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
         [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
         [-0.011820, 0.042940, 0.968881]],
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
         [0.004733, 0.691367, 0.303900]],
    ]  # fmt: skip
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    coded = np.array([to_rgb(colour) for colour in COLOURS])
    light = np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)
    for vision in visions:
        xyz = np.clip(light @ np.transpose(vision), 0, 1) @ to_xyz.T / to_xyz.sum(axis=1)
        x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116).T
        lab = np.column_stack([116 * y - 16, 500 * (x - y), 200 * (y - z)])
        assert min(np.linalg.norm(one - other) for one, other in combinations(lab, 2)) > 19
        if vision is visions[0]:
            lightness = lab[:, 0]
            assert max(lightness) < 80  # which is still seen on white
            assert min(np.diff(sorted(lightness))) > 6
            assert min(np.diff(sorted(lightness[:4]))) > 12


# A grid.


def names_cover_nothing(axes):
    """They are right of the lines, above each other."""
    axes.figure.draw_without_rendering()
    boxes = sorted(map(Text.get_window_extent, axes.texts), key=lambda box: box.y0)
    assert all(box.x0 > axes.bbox.x1 for box in boxes)
    assert all(low.y1 <= high.y0 for low, high in pairwise(boxes))


@pytest.mark.parametrize(
    ("args", "labels", "series"),
    [
        (
            GRID,
            ["output channels (OC)", "MACs, separable / standard", "32", "1024",
             "MACs of separable / standard convolution: 18 layers, padding same",
             "IC 64, D 14x14; dashed: 1/F^2, the limit for large OC"],
            ["F 3x3", "F 5x5", "F 7x7"],
        ),
        ("64 32,64 3 14", ["output channels (OC)", "32", "64"], ["separable"]),
        ("32:128:x2 64 3 14", ["input channels (IC)", "32", "128"], ["separable"]),
        ("64 64 3 7,14,28", ["feature map size (D)", "7", "14", "28"], ["separable"]),
        ("64 8,64 3:7 14", ["filter size (F)", "3", "7"], ["OC 8", "OC 64"]),
        (
            "64 8,64 3,5 7,14,28",
            ["feature map size (D)", "7", "14", "28"],
            ["OC 8, F 3x3", "OC 8, F 5x5", "OC 64, F 3x3", "OC 64, F 5x5"],
        ),
        ("64 8 3,3x5,5 14", ["filter size (F)", "3x3", "3x5", "5x5"], ["separable"]),
        (
            "64 8,64 3 14 -m 2",
            ["IC 64, F 3x3, D 14x14; dashed: 2/F^2, the limit for large OC"],
            ["separable"],
        ),
        ("64 8,64 3 14 --unit flops", ["MACs, separable / standard"], ["separable"]),
        (
            "64 8:64:x2 3 14 --where mac_ratio>0.15",
            ["MACs of separable / standard convolution: some of 4 layers, padding same"],
            ["separable"],
        ),
    ],
)  # fmt: skip
def test_a_grid_has_labelled_axes_and_names_its_lines_at_their_ends(
    args, labels, series, figures, run, tmp_path
):
    path = tmp_path / "picture.svg"
    assert run(f"{args} -f csv --plot {path}").code == 0
    shown = words(path)
    assert [label for label in [*labels, *series] if label not in shown] == []
    [axes] = figures[0].axes
    assert not figures[0].legends
    named = {text.get_text(): text for text in axes.texts}
    assert sorted(named) == sorted(series)
    for line in axes.lines:
        if line.get_gid():
            text = named[line.get_gid()]
            end = axes.transData.transform(line.get_xydata()[-1])
            assert axes.transAxes.transform(text.xy) == pytest.approx(end)
            assert text.arrow_patch.get_edgecolor()[:3] == to_rgb(line.get_color())
    names_cover_nothing(axes)


@pytest.fixture
def drawn(monkeypatch):
    """What is given to matplotlib: a list of (method, values, options)."""
    calls = []

    def spy(name):
        method = getattr(Axes, name)

        def call(self, *values, **options):
            calls.append((name, values, options))
            return method(self, *values, **options)

        monkeypatch.setattr(Axes, name, call)

    spy("plot")
    spy("barh")
    return calls


def test_the_lines_of_a_grid_are_the_ratios_and_the_dashed_ones_their_limits(drawn, run, tmp_path):
    run(f"{GRID} --plot {tmp_path / 'picture.svg'}")
    channels = [32, 64, 128, 256, 512, 1024]
    lines = {options["gid"]: values for _, values, options in drawn if "gid" in options}
    for f in (3, 5, 7):
        xs, ys = lines.pop(f"F {f}x{f}")
        assert xs == channels
        assert ys == [float(Fraction(1, oc) + Fraction(1, f * f)) for oc in channels]
    assert lines == {}
    limits = [values for _, values, options in drawn if options.get("linestyle") == "--"]
    assert limits == [((*channels,), (1 / (f * f),) * 6) for f in (3, 5, 7)]


@pytest.mark.parametrize(("unit", "per_mac"), [("macs", 1), ("flops", 2)])
def test_a_block_stands_at_its_params_and_its_macs_or_flops(unit, per_mac, drawn, run, tmp_path):
    run(f"blocks 3 64 3 224 --only separable --unit {unit} --plot {tmp_path / 'picture.svg'}")
    cost = {192 * 9: 86_704_128, 27 + 192: 10_988_544}
    points = {x: y for _, (x, y, *_), _ in drawn}
    assert points == {params: per_mac * macs for params, macs in cost.items()}


def test_lines_differ_in_marker_and_colour(drawn, run, tmp_path):
    run(f"64 32:1024:x2 3:7 14 --plot {tmp_path / 'picture.svg'}")
    lines = [options for *_, options in drawn if "gid" in options]
    assert len(lines) == 5
    for feature in ("marker", "color"):
        assert len({line[feature] for line in lines}) == 5


def test_sizes_that_are_no_lengths_are_not_joined(drawn, run, tmp_path):
    path = tmp_path / "picture.svg"
    run(f"64 64 3,3x5,1x7 14 --plot {path}")
    (_, (places, ratios), line), (_, (_, limits), limit) = drawn
    assert (places, line["linestyle"], limit["linestyle"]) == ([0, 1, 2], "none", "none")
    assert ratios == [1 / 64 + 1 / taps for taps in (9, 15, 7)]
    assert limits == (1 / 9, 1 / 15, 1 / 7)
    # The limit is not 1/F^2 for all of them.
    assert "IC 64, OC 64, D 14x14; dashed: the limit for large OC" in words(path)


def test_lines_go_from_left_to_right_whatever_the_order(drawn, run, tmp_path):
    run(f"64 64 5,3,7 14 --plot {tmp_path / 'picture.svg'}")
    assert [tuple(xs) for _, (xs, _), _ in drawn] == [(3, 5, 7), (3, 5, 7)]


@pytest.mark.parametrize(
    ("args", "title", "lines"),
    [
        (
            "16,64 8:32:8 3 14",
            "IC 16, 64 (no effect), F 3x3, D 14x14; dashed: 1/F^2, the limit for large OC",
            1,
        ),
        (
            "64 8:64:8 3 7:42:7",
            "IC 64, F 3x3, D 7x7 ... 42x42 (no effect); dashed: 1/F^2, the limit for large OC",
            1,
        ),
        ("16,64 8:32:8 3 14 --as bottleneck", "F 3x3, D 14x14", 2),
        ("16 8:32:8 3 13,14 --as bottleneck --stride 2", "IC 16, F 3x3", 2),
    ],
)
def test_what_changes_the_ratio_has_lines_and_what_does_not_is_said(
    args, title, lines, drawn, run, tmp_path
):
    path = tmp_path / "picture.svg"
    assert run(f"{args} -f csv --plot {path}").code == 0
    assert title in words(path)
    assert len([options for *_, options in drawn if "gid" in options]) == lines


@pytest.mark.parametrize(
    ("args", "scale"), [("64 64,512 1:11:2 14", "log"), ("64 64,512 3:7:2 14", "linear")]
)
def test_ratios_that_span_much_have_a_logarithmic_axis(args, scale, figures, run, tmp_path):
    run(f"{args} --plot {tmp_path / 'picture.svg'}")
    [axes] = figures[0].axes
    assert axes.get_yscale() == scale


@pytest.mark.parametrize("args", ["64 64 3 14:224:14", "64 64 3 7,14", GRID])
def test_no_point_of_a_grid_is_at_the_edge(args, figures, run, tmp_path):
    run(f"{args} --plot {tmp_path / 'picture.svg'}")
    [axes] = figures[0].axes
    top = max(y for line in axes.lines for y in line.get_ydata())
    assert 1.05 * top < axes.get_ylim()[1]


# Any picture.


@pytest.fixture
def figures(monkeypatch):
    """The figures that are written."""
    found, save = [], Figure.savefig

    def keep(self, *args, **options):
        found.append(self)
        save(self, *args, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    return found


LONG = "features.stage." * 8


def test_nothing_is_cut_off_however_long_it_is(run, tmp_path):
    """Ink that is cut off reaches the edge of the picture."""
    network, path = tmp_path / f"{LONG}csv", tmp_path / "picture.png"
    header = "name,kind,in_channels,out_channels,kernel_size,input_size"
    network.write_text(f"{header}\n{LONG},conv,3,8,3,9\n{LONG}b,conv,,8,3,\nc,conv,,8,3,\n")
    twice = f"{network} {network} --input-size 9,18"
    for args in (f"{network} --as separable", f"{network} mobilenet_v1", twice):
        result = run(f"network {args} --no-verify -f csv --plot {path}")
        assert (result.code, result.stderr) == (0, "")
        picture = imread(path)
        edges = [picture[0], picture[-1], picture[:, 0], picture[:, -1]]
        assert all((edge == 1).all() for edge in edges)
        assert picture.shape[1] in (1999, 2000)


@pytest.mark.parametrize("name", ["figure.facecolor", "axes.facecolor"])
@pictures
def test_a_picture_is_on_white_whatever_style_is_set(name, args, run, tmp_path):
    path = tmp_path / "picture.png"
    with rc_context({name: "black", "savefig.transparent": True, "text.color": "white"}):
        run(f"{args} --plot {path}")
    picture = imread(path)
    assert (picture[:, :, 3] == 1).all()
    assert picture.mean() > 0.7
    assert picture.min() < 0.2


@pytest.mark.parametrize(
    ("args", "title"),
    [
        (GRID, "18 layers, padding same"),
        (NETWORK, "MobileNetV1, 1.0, 224, weights only: Howard et al., 2017, arXiv 1704.04861"),
    ],
)
def test_an_svg_has_a_title(args, title, run, tmp_path):
    path = tmp_path / "picture.svg"
    run(f"{args} --plot {path}")
    found = ElementTree.parse(path).getroot().findtext("{http://www.w3.org/2000/svg}title")
    assert found.startswith(title)


def test_labels_cover_neither_each_other_nor_a_point(figures, run, tmp_path):
    run(f"blocks 256 256 3 56 --no-verify --plot {tmp_path / 'picture.svg'}")
    [axes] = figures[0].axes
    labels = [text for text in axes.texts if text.get_text()]
    assert len(labels) == 9
    boxes = [text.get_window_extent() for text in labels]
    for box, other in combinations(boxes, 2):
        assert not box.overlaps(other)
    points = [axes.transData.transform(line.get_xydata()[0]) for line in axes.lines]
    assert [point for point in points for box in boxes if box.contains(*point)] == []


def test_blocks_of_several_layers_are_lines_of_ratios_a_panel_for_each_size(figures, run, tmp_path):
    path = tmp_path / "picture.svg"
    run(f"blocks 64,128 8:64:x2 3 56 --no-verify --plot {path}")
    title = "MACs of 8 blocks / standard convolution (dashed): 8 layers, padding same"
    assert {title, "F 3x3, D 56x56; panels: input channels (IC)"} <= set(words(path))
    narrow, wide = figures[0].axes
    assert [axes.get_title() for axes in figures[0].axes] == ["IC 64", "IC 128"]
    assert narrow.get_ylim() == wide.get_ylim()
    names = sorted(name for name in DEFAULTS if name != "standard")
    assert sorted(text.get_text() for text in wide.texts) == names
    assert [*narrow.texts] == []
    names_cover_nothing(wide)
    for axes, channels in ((narrow, 64), (wide, 128)):
        lines = {line.get_gid(): line for line in axes.lines if line.get_gid()}
        assert list(lines) == names
        marks = {(line.get_marker(), line.get_color()) for line in lines.values()}
        assert len(marks) == len({mark for mark, _ in marks}) == len({c for _, c in marks}) == 8
        for name, line in lines.items():
            layers = [Conv(channels, out, 3, 56) for out in (8, 16, 32, 64)]
            ratios = [float(layer_row(layer, Block.parse(name)).mac_ratio) for layer in layers]
            assert list(line.get_xdata()) == [8, 16, 32, 64]
            assert list(line.get_ydata()) == ratios


@pytest.mark.parametrize("order", ["", "--sort macs", "--sort macs --reverse"])
def test_a_block_has_its_colour_and_a_line_its_direction_in_any_order(
    order, figures, run, tmp_path
):
    run(f"blocks 64 8:64:x2 3 56 --no-verify {order} --plot {tmp_path / 'picture.svg'}")
    lines = {line.get_gid(): line for line in figures[0].axes[0].lines if line.get_gid()}
    assert (lines["blueprint"].get_color(), lines["spatial"].get_color()) == COLOURS[:8:7]
    assert all(list(line.get_xdata()) == [8, 16, 32, 64] for line in lines.values())


def test_a_line_that_the_last_panel_lacks_has_its_name_there_too(figures, run, tmp_path):
    args = "blocks 64,1024 8:64:x2 3 56 --no-verify --where mac_ratio>0.12"
    run(f"{args} --plot {tmp_path / 'picture.svg'}")
    first, last = figures[0].axes
    drawn = [
        {line.get_gid() for line in axes.lines if len(line.get_xdata())} for axes in (first, last)
    ]
    assert "blueprint" in drawn[0] - drawn[1]
    assert {text.get_text() for text in last.texts} == (drawn[0] | drawn[1]) - {None}


@pytest.mark.parametrize(
    ("args", "numbers"),
    [
        ("blocks 64 8:1024:x2 3 14", ["0.02", "0.05", "0.1", "0.2", "0.5", "1", "2", "5"]),
        ("blocks 256 256 3 56", ["200 M", "500 M", "1 G", "2 G", "5 G"]),
        ("network mobilenet_v1 alexnet vgg16", ["500 M", "1 G", "2 G", "5 G", "10 G"]),
        ("network mobilenet_v1 --input-size 128:224:32", ["0", "200 M", "400 M", "600 M"]),
        ("network mobilenet_v1", ["0", "10 M", "20 M", "30 M", "40 M", "50 M"]),
        (GRID, ["0.00", "0.02", "0.04", "0.06", "0.08", "0.10"]),
    ],
)
def test_the_numbers_of_an_axis_are_written_in_one_way(args, numbers, figures, run, tmp_path):
    path = tmp_path / "picture.svg"
    run(f"{args} --no-verify --plot {path}")
    shown = words(path)
    assert [number for number in numbers if number not in shown] == []
    assert not [word for word in shown if "10^" in word or "times" in word]


# A network.


def test_with_a_baseline_the_bars_are_what_changed(drawn, run, tmp_path):
    baseline, path = tmp_path / "main.json", tmp_path / "picture.svg"
    run(f"network mobilenet_v1 --no-verify --input-size 64 -f json -o {baseline}")
    run(f"{NETWORK} --input-size 32 --baseline {baseline} --plot {path}")
    small, large = (
        list(load_network("mobilenet_v1", input_size=size)) for size in ((32, 32), (64, 64))
    )
    before, now = (values[1] for _, values, _ in drawn)
    pairs = [
        (old.as_is.cost.macs, new.as_is.cost.macs) for old, new in zip(large, small, strict=True)
    ]
    assert list(zip(before, now, strict=True)) == [(a, b) for a, b in pairs if a != b]
    assert {"before", "now"} <= set(words(path))


def test_where_nothing_changed_the_bar_is_the_total(drawn, run, tmp_path):
    baseline, path = tmp_path / "main.json", tmp_path / "picture.svg"
    run(f"{NETWORK} -f json -o {baseline}")
    assert run(f"{NETWORK} --baseline {baseline} --plot {path}").code == 0
    before, now = (list(values[1]) for _, values, _ in drawn)
    assert (before, now) == ([568_740_352], [])
    assert {"total", "before", "now"} <= set(words(path))


def test_a_report_that_cannot_be_written_leaves_no_picture(run, start, tmp_path):
    picture = tmp_path / "picture.svg"
    command = f"3 8,16 3 5 --no-verify --plot {picture}"
    assert "No such file" in run(f"{command} -o {tmp_path}/nothere/report.json").error
    assert "both name" in run(f"{command} -o {tmp_path}/../{tmp_path.name}/picture.svg").error
    with Path("/dev/full").open("wb") as full:
        _, stderr = start(command, stdout=full).communicate(timeout=60)
    assert stderr.startswith(b"error: cannot write to stdout: No space left on device")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "label", "sides", "total"),
    [
        ("", "MACs", [], "568,740,352 MACs (569 M)"),
        (
            "--as standard",
            "MACs",
            ["as it is", "as standard"],
            "568,740,352 MACs (569 M), as standard 4,867,293,184 (4.87 G)",
        ),
        (
            "--as separable --unit flops",
            "FLOPs",
            ["as it is", "as separable"],
            "1,137,480,704 FLOPs (1.14 G), as separable 1,118,890,496 (1.12 G)",
        ),
    ],
)
def test_a_network_has_labelled_axes_and_names_its_layers_and_sides(
    options, label, sides, total, run, tmp_path
):
    path = tmp_path / "picture.svg"
    run(f"{NETWORK} {options} --plot {path}")
    shown = words(path)
    layers = [row.name for row in load_network("mobilenet_v1")]
    layers.remove("pool")  # without MACs
    assert [name for name in shown if name in layers] == layers
    assert [word for word in shown if word in ("MACs", "FLOPs")] == [label]
    assert [word for word in shown if word.startswith("as ")] == sides
    title = "MobileNetV1, 1.0, 224, weights only: Howard et al., 2017, arXiv 1704.04861, Table 1:"
    assert {"layer", title, total} <= set(shown)


def test_a_title_is_never_broken_between_a_number_and_its_letter(run, here):
    fits, too_long = ".csv: 221,184 MACs (221 K), as separable 52,224", "(52.2 K)"
    name = "n" * (84 - len(f"{fits} (52.2"))
    network = "kind,in_channels,out_channels,kernel_size,input_size\nconv,3,8,3,32\n"
    (here / f"{name}.csv").write_text(network)
    assert run(f"network {name}.csv --as separable --plot picture.svg").code == 0
    assert {f"{name}{fits}", too_long} <= set(words(here / "picture.svg"))


@pytest.mark.parametrize(("unit", "scale"), [("macs", 1), ("flops", 2)])
def test_the_bars_of_a_network_are_its_counts_and_one_if_nothing_changes(
    unit, scale, drawn, run, tmp_path
):
    for options in ("", "--as standard"):
        run(f"{NETWORK} --unit {unit} {options} --plot {tmp_path / 'picture.svg'}")
    rows = load_network("mobilenet_v1", block=STANDARD)
    rows = [row for row in rows if row.as_is.cost.macs]
    alone, as_is, rewritten = (values[1] for _, values, _ in drawn)
    assert alone == as_is == [scale * row.as_is.cost.macs for row in rows]
    changed = [row for row in rows if row.rewritten.cost != row.as_is.cost]
    assert len(rows) - len(changed) == 2  # the first and the last
    assert rewritten == [scale * row.rewritten.cost.macs for row in changed]
    assert sum(as_is) == scale * 568_740_352
    assert sum(rewritten) + as_is[0] + as_is[-1] == scale * 4_867_293_184


def test_bars_have_values_and_their_shares_of_the_total(figures, run, tmp_path):
    run(f"{NETWORK} --as standard --plot {tmp_path / 'picture.svg'}")
    texts = [text.get_text() for text in figures[0].axes[0].texts]
    assert texts[:2] == ["10.8 M (1.9%)", "29.3 M (5.2%)"]
    assert texts[-1] == "462 M"


def test_a_picture_of_some_rows_says_which(run, tmp_path):
    path = tmp_path / "picture.svg"
    run(f"{NETWORK} --top 3 --sort macs --plot {path}")
    assert "3 rows by macs of 568,740,352 MACs (569 M)" in words(path)


def test_names_of_layers_are_drawn_literally(run, tmp_path):
    """Those that look like markup or a formula, too, and letters that the font lacks."""
    network, path = tmp_path / "net.csv", tmp_path / "picture.svg"
    rows = "<b>&amp;[red],conv,3,8,3,9 _hidden,conv,,8,3, \x1b[31m,conv,,8,3, $\\foo$,conv,,4,3, "
    header = "name,kind,in_channels,out_channels,kernel_size,input_size"
    network.write_text("\n".join([header, *f"{rows}畳,conv,,4,3,".split(" ")]), "utf-8")
    result = run(f"network {network} --no-verify --plot {path}")
    assert (result.code, result.stderr) == (0, "")
    assert {"<b>&amp;[red]", "_hidden", r"\x1b[31m", r"$\foo$"} <= set(words(path))


def test_names_of_networks_are_drawn_in_letters_that_the_font_lacks_too(run, tmp_path):
    network = tmp_path / "畳.csv"
    network.write_text("kind,in_channels,out_channels,kernel_size,input_size\nconv,3,8,3,9\n")
    result = run(f"network {network} mobilenet_v1 --plot {tmp_path / 'picture.png'}")
    assert (result.code, result.stderr) == (0, "")


@pytest.mark.parametrize("kind", BEGINS)
def test_a_network_without_macs_has_a_picture_too(kind, run, tmp_path):
    network, path = tmp_path / "net.csv", tmp_path / f"picture.{kind}"
    network.write_text("kind,in_channels,input_size\nnorm,3,9\n")
    assert run(f"network {network} -q --plot {path}")[::2] == (0, "")
    assert path.read_bytes().startswith(BEGINS[kind])


# No picture.


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        ("3 64 3 224 --plot {}/x.svg", "--plot needs a grid; give a list or a range, such as "),
        (f"{GRID} --plot {{}}/x.jpg", "--plot needs a file that ends in .png, .svg or .pdf, got "),
        (f"{GRID} --plot {{}}/x", "--plot needs a file that ends in .png, .svg or .pdf, got "),
        (f"{NETWORK} --plot {{}}/png", "--plot needs a file that ends in .png, .svg or .pdf, "),
        (
            "3 1:20 1:11 14 --plot {}/x.svg",
            "a plot shows at most 9 lines, and here are 11; vary fewer values",
        ),
        (
            "blocks 1:17 1:20 3 14 --no-verify --plot {}/x.svg",
            "a plot shows at most 16 panels, and here are 17; vary fewer values",
        ),
        (
            "3 1:200 1:200 14 -f csv --plot {}/x.svg",
            "--plot takes at most 10,000 rows, got 40,000; ",
        ),
        (
            "3 1:1000000 3 14 -f csv --plot {}/x.svg",
            "--plot takes at most 10,000 rows, got 1,000,000; ",
        ),
        (f"{GRID} --plot {{}}/no/x.svg", "cannot write {}/no/x.svg: No such file or directory"),
        (f"{NETWORK} --plot {{}}/no/x.svg", "cannot write {}/no/x.svg: No such file or directory"),
        (f"{GRID} --plot {{}}/d.svg", "cannot write {}/d.svg: it is a directory; name a file in "),
        (f"{NETWORK} --plot {{}}/f/x.svg", "cannot write {}/f/x.svg: Not a directory"),
    ],
)
def test_where_there_is_no_picture_there_is_one_line(args, reason, run, tmp_path):
    (tmp_path / "d.svg").mkdir()
    (tmp_path / "f").touch()
    result = run(args.format(tmp_path))
    assert (result.code, result.stdout) == (2, "")
    assert result.error.startswith(reason.format(tmp_path))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["d.svg", "f"]


def test_a_full_device_is_an_error_of_one_line(run, tmp_path):
    path = tmp_path / "full.svg"
    path.symlink_to("/dev/full")
    result = run(f"{GRID} --plot {path}")
    assert (result.code, result.stdout) == (2, "")
    assert result.error == f"cannot write {path}: No space left on device"
    assert Path("/dev/full").is_char_device()


@pytest.fixture
def without_matplotlib(monkeypatch):
    monkeypatch.delitem(sys.modules, "dscalc.report.plot", raising=False)
    monkeypatch.delattr(dscalc.report, "plot", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)


@pictures
def test_without_matplotlib_it_says_how_to_install_it(args, without_matplotlib, run, tmp_path):
    result = run(f"{args} --plot {tmp_path / 'x.svg'}")
    assert (result.code, result.stdout) == (2, "")
    assert result.error.startswith("--plot needs matplotlib (")
    assert result.error.endswith("; install it with pip install matplotlib")
    assert list(tmp_path.iterdir()) == []


@pictures
def test_without_matplotlib_all_else_works(args, without_matplotlib, run):
    assert run(args)[::2] == (0, "")


@pictures
def test_a_fault_while_drawing_leaves_the_old_picture(args, run, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("planted")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fail)
    path = tmp_path / "old.svg"
    path.write_text("old")
    result = run(f"{args} --plot {path}")
    assert (result.code, result.stdout) == (2, "")
    assert "planted" in result.error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_more_layers_than_can_be_seen_are_refused(run, tmp_path):
    network, path = tmp_path / "net.csv", tmp_path / "picture.png"
    network.write_text(
        "kind,in_channels,out_channels,kernel_size,input_size,repeat\nconv,3,3,3,8,501\n"
    )
    result = run(f"network {network} --no-verify --plot {path}")
    assert (result.code, result.stdout, path.exists()) == (2, "", False)
    assert result.error == "a plot shows at most 500 layers, and 501 have MACs; plot a part"
