"""Tables of models: a tree that adds up, at every width, and what gives way in which order."""

import time
from dataclasses import replace
from fractions import Fraction
from io import StringIO

import architectures
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from torch import nn

import dscalc
from dscalc.pytorch import audit
from dscalc.report import sentences, table, tree
from dscalc.report.layout import _WAYS, fitted
from dscalc.report.sheet import Column, Number, Sheet

WIDTHS = (120, 100, 80, 60, 40)


class Tagger(nn.Module):
    """An embedding, whose params are no MACs, and a recurrent layer."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(5000, 128)
        self.lstm = nn.LSTM(128, 256, 2, bidirectional=True, batch_first=True)
        self.fc = nn.Linear(512, 20)

    def forward(self, ids):
        return self.fc(self.lstm(self.embed(ids))[0])


class Residual(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, maps):
        return maps + self.conv2(self.norm(self.conv1(maps)))


class Tower(nn.Module):
    """Stages of residual blocks that are alike, and a head that did not run."""

    def __init__(self, blocks=(2, 3)):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 7, 2, 3)
        self.layer1 = nn.Sequential(*(Residual(16) for _ in range(blocks[0])))
        self.down = nn.Conv2d(16, 32, 1, 2)
        self.layer2 = nn.Sequential(*(Residual(32) for _ in range(blocks[1])))
        self.aux = nn.Linear(3, 4)
        self.fc = nn.Linear(32, 10)

    def forward(self, images):
        maps = self.layer2(self.down(self.layer1(self.stem(images))))
        return self.fc(maps.mean((2, 3)))


def encoder():
    layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True)
    return nn.Sequential(nn.Linear(32, 64), nn.TransformerEncoder(layer, 6), nn.Linear(64, 8))


IMAGE = (1, 3, 64, 64)
MODELS = {
    "resnet50": (architectures.resnet50, IMAGE),
    "mobilenet_v2": (architectures.mobilenet_v2, IMAGE),
    "convnext_tiny": (architectures.convnext_tiny, IMAGE),
    "vit": (architectures.deit_s, (1, 3, 224, 224)),
    "unet": (architectures.unet, (1, 1, 32, 32)),
    "detector": (architectures.shared_head_detector, IMAGE),
    "tagger": (Tagger, torch.zeros(1, 32, dtype=torch.int64)),
    "tower": (Tower, IMAGE),
    "encoder": (encoder, (1, 10, 32)),
    "one layer": (lambda: nn.Conv2d(3, 8, 3), IMAGE),
}
BLOCKS = (None, "separable")


@pytest.fixture(scope="module")
def reports():
    return {
        (name, block): audit(make(), inputs, block=block)
        for name, (make, inputs) in MODELS.items()
        for block in BLOCKS
    }


def leaves(sheet):
    """The lines without parts."""
    return [row for number, row in enumerate(sheet.rows) if number not in sheet.modules]


def column(sheet, head):
    return [each.head for each in sheet.columns].index(head)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("name", MODELS)
def test_lines_without_parts_add_up_to_the_total_at_every_depth(reports, name, block):
    report = reports[name, block]
    for depth in (None, 0, 1, 2, 3):
        sheet = replace(report, depth=depth).sheet()
        at = column(sheet, "MACs")
        assert sum(row[at].value for row in leaves(sheet)) == report.macs
        assert sheet.result[at].value == report.macs
        assert len(set(sheet.names)) == len(sheet.names)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("name", MODELS)
def test_at_every_width_it_fits_and_has_macs_params_and_shares(reports, name, block, monkeypatch):
    report = reports[name, block]
    for depth in (None, 0, 1):
        sheet = replace(report, depth=depth).sheet()
        for width in WIDTHS:
            found = fitted(sheet, width, cell_len, "…")
            assert found is not None
            heads = {head.replace("\n", " ") for head in found.heads}
            needed = {"MACs", "params"} | ({"share"} if not block or width >= 44 else set())
            if block and report.total.rewritten != report.total.as_is:
                needed.add("ratio")
            assert needed <= heads, (width, heads)
            monkeypatch.setenv("COLUMNS", str(width))
            lines = table.render(sheet, StringIO()).split("\n")
            end = next(number for number, line in enumerate(lines) if line.startswith("total"))
            assert all(len(line) <= width for line in lines[: end + 1])


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("name", MODELS)
def test_by_itself_a_table_has_at_most_30_lines_and_five_sentences(reports, name, block):
    sheet = reports[name, block].sheet()
    assert len(sheet.rows) <= 30
    said = [*sheet.lead, *sheet.said()]
    assert len([sentence for sentence in said if not sentence.startswith("note: ")]) <= 5


@pytest.mark.parametrize("name", MODELS)
def test_in_a_list_different_paths_look_different(reports, name):
    report = reports[name, None]
    rows = sorted(report.rows, key=lambda row: -row.as_is.cost.params)[:12]
    sheet = replace(report, rows=rows, parts=report.rows, selected=" by params").sheet()
    for width in (120, 80, 60):
        found = fitted(sheet, width, cell_len, "…")
        names = [row[0] for row in found.rows]
        assert len(set(names)) == len(set(sheet.names))


@pytest.fixture
def tower(here):
    """The command line of a tower."""
    (here / "towers.py").write_text("from test_tables import Tower\n")
    return "model", "towers.py:Tower", "--input", "3x64x64"


@pytest.mark.parametrize("depth", [(), ("--depth", "1"), ("--depth", "all")])
def test_json_is_the_same_at_every_width(run, tower, depth):
    answers = {run(*tower, "-f", "json", *depth, columns=width) for width in (40, 120)}
    assert len(answers) == 1


def test_an_explicit_depth_sums_rows_in_every_format_and_nothing_else_does(run, tower):
    base = (*tower, "--get", "name", "--rows")
    summed = run(*base, "--depth", "1").stdout.split()
    assert summed == ["stem", "layer1", "down", "layer2", "fc", "aux"]
    assert run(*base, "--depth", "all") == run(*base)
    assert "layer1.0.conv1" in run(*base).stdout


def test_alike_siblings_are_one_line_unless_one_param_differs():
    def names(model):
        return audit(model, IMAGE).sheet().names

    model = Tower((2, 5))
    assert "layer2.0-4" in names(model)
    model.layer2[2].norm = nn.BatchNorm2d(32, affine=False)
    assert "layer2.0-4" not in names(model)
    assert {"layer2.0-1", "layer2.2", "layer2.3-4"} <= set(names(model))


def test_a_leaf_is_only_folded_if_its_name_is_a_number():
    model = nn.Sequential(*(nn.Conv2d(4, 4, 3, padding=1) for _ in range(3)))
    assert audit(model, (1, 4, 8, 8)).sheet().names == ["0-2"]
    named = nn.Sequential()
    for number in range(3):
        named.add_module(f"conv{number}", nn.Conv2d(4, 4, 3, padding=1))
    assert audit(named, (1, 4, 8, 8)).sheet().names == ["conv0", "conv1", "conv2"]


def test_folded_containers_are_so_many_of_their_own_class_not_of_what_holds_them():
    class Blocks(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList(
                nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)) for _ in range(40)
            )

        def forward(self, maps):
            for block in self.blocks:
                maps = block(maps)
            return maps

    def first_line(model, depth):
        return replace(audit(model, (1, 4, 8, 8)), depth=depth).sheet().rows[0][:2]

    assert first_line(Blocks(), 1) == ["blocks", "ModuleList"]
    assert first_line(Blocks(), 2) == ["blocks.0-39", "40 x Sequential"]
    assert first_line(nn.Sequential(Blocks()), 3) == ["0.blocks.0-39", "40 x Sequential"]


def test_the_lines_of_a_tower():
    sheet = audit(Tower(), IMAGE).sheet()
    lines = [(row[0], row[1], str(row[4])) for row in sheet.rows]
    assert lines == [
        ("stem", "conv 7x7", "2,408,448"),
        ("layer1.0-1", "2 x Residual", "9,437,184"),
        ("  conv1", "2 x conv 3x3", "4,718,592"),
        ("  conv2", "2 x conv 3x3", "4,718,592"),
        ("down", "pointwise", "131,072"),
        ("layer2.0-2", "3 x Residual", "14,155,776"),
        ("  conv1", "3 x conv 3x3", "7,077,888"),
        ("  conv2", "3 x conv 3x3", "7,077,888"),
        ("fc", "linear", "320"),
    ]
    assert sheet.notes[0] == "note: 1 module did not run: aux (16 params)"
    assert sheet.said()[-1] == "not shown: 5 BatchNorm2d without MACs (256 params)"


def test_an_embedding_is_shown_and_norms_are_not(reports):
    sheet = reports["tagger", None].sheet()
    assert set(sheet.names) == {"embed", "lstm", "fc"}


def test_operators_of_a_module_beside_its_parts_are_in_brackets(reports):
    names = reports["vit", None].sheet().names
    assert any(name.endswith(" (attention)") for name in names)
    assert not any(name.startswith("(") for name in names)


def test_what_an_option_names_is_a_column_that_never_gives_way(run, tower):
    for options in (
        ("--sort", "activations"),
        ("--where", "activations > 0"),
        ("--assert", "activations >= 0"),
        ("--assert-each", "activations >= 0"),
    ):
        assert "activations" in run(*tower, *options, columns=60).stdout
    assert "activations" not in run(*tower, columns=120).stdout


def test_a_table_says_which_rows_were_chosen(run, tower):
    first = run(*tower, "--sort", "params", "--top", "2").stdout.split("\n")[0]
    assert first == "towers.py:Tower at 3x64x64: 2 of 13 rows by params"
    first = run(*tower, "--where", "macs > 1M").stdout.split("\n")[0]
    assert first == "towers.py:Tower at 3x64x64: 11 of 13 rows where macs > 1M"


def test_a_ratio_of_a_table_is_the_field(run):
    for command in ("network mobilenet_v1 --as standard", "network resnet50 --as separable"):
        ratio = float(run(*command.split(), "--get", "mac_ratio").stdout)
        total = next(
            line
            for line in run(*command.split(), columns=120).stdout.split("\n")
            if "total" in line
        )
        assert f"{100 * ratio:,.2f}%" in total


@pytest.mark.parametrize(
    ("number", "text"),
    [(9_999, "9,999"), (10_000, "10.0 K"), (99_949, "99.9 K"), (99_950, "100 K"),
     (999_499, "999 K"), (999_500, "1.00 M"), (118_013_952, "118 M"), (1_814_073_344, "1.81 G"),
     (10**18, "1,000 P"), (10**400, f"{10**385:,} P")],
)  # fmt: skip
def test_three_digits_and_a_letter(number, text):
    assert sentences.scaled(number) == text


def test_no_sentence_is_wrapped_within_a_number(monkeypatch):
    sheet = Sheet("t", lead=["1 MAC = 2 FLOPs " * 4 + "1.81 G " * 9 + "46.8 MB " * 9])
    for width in range(20, 60):
        monkeypatch.setenv("COLUMNS", str(width))
        lines = [line.strip() for line in table.render(sheet, StringIO()).split("\n")[1:]]
        assert not any(line.endswith(("1.81", "46.8", "MAC", "=")) for line in lines)


def test_a_column_is_put_back_where_it_fits_and_is_filled():
    rows = [("a" * 30, 10**9, "x" * 12, "y")]
    columns = [
        Column("name", lambda row: row[0], role="name"),
        Column("MACs", lambda row: Number(row[1])),
        Column("wide", lambda row: row[2], rank=2),
        Column("small", lambda row: row[3], rank=1),
    ]
    sheet = Sheet.of("", columns, rows, [], paths=True)
    found = fitted(sheet, 52, cell_len, "…")
    assert [column.head for column in found.columns] == ["name", "MACs", "small"]


def test_markdown_has_full_paths_and_the_answer_above_the_table():
    text = str(audit(Tower(), IMAGE))
    lead, rest = text.split("| layer |")
    assert "26,132,800 MACs (26.1 M), 68,026 params (68.0 K)" in lead
    assert "| layer2.0-2.conv1 | 3 x conv 3x3 |" in rest
    assert "0 to " not in text  # no bars


@st.composite
def nests(draw, depth=3):
    """Modules of convolutions that keep the sizes of maps, one in another."""
    if depth == 0 or draw(st.booleans()):
        return nn.Conv2d(4, 4, draw(st.sampled_from((1, 3))), padding="same")
    parts = draw(st.lists(nests(depth=depth - 1), min_size=1, max_size=5))
    return nn.Sequential(*parts)


@given(nests(depth=4), st.integers(40, 120), st.sampled_from((None, 0, 1, 2)))
@settings(max_examples=40, deadline=None)
def test_any_nest_of_modules_adds_up_in_lines_that_differ(model, width, depth):
    report = replace(audit(model, (1, 4, 8, 8), verify=False), depth=depth)
    sheet = report.sheet()
    at = column(sheet, "MACs")
    assert sum(row[at].value for row in leaves(sheet)) == report.macs
    assert len(set(sheet.names)) == len(sheet.names)
    assert fitted(sheet, width, cell_len, "…") is not None
    assert depth is not None or len(sheet.rows) <= 30


def test_a_thousand_rows_are_drawn_in_a_tenth_of_the_time_of_their_audit(monkeypatch):
    sizes = [(1, 3, 5)[number * number % 7 % 3] for number in range(1000)]
    parts = [nn.Conv2d(8, 8, size, padding="same") for size in sizes]
    model = nn.Sequential(*(nn.Sequential(*parts[at : at + 50]) for at in range(0, 1000, 50)))
    started = time.process_time()
    report = audit(model, (1, 8, 16, 16))
    audited = time.process_time()
    assert len(table.render(report.sheet())) > 500
    assert (time.process_time() - audited) * 10 < audited - started


@given(
    st.lists(
        st.sampled_from(["0", "12", "conv", "layer", "mixed_5b", "a_long_name_of_a_part"]),
        min_size=1,
    ),
    st.integers(8, 40),
    st.sampled_from(["\N{HORIZONTAL ELLIPSIS}", "..."]),
)
def test_each_way_to_shorten_a_path_makes_it_fit(parts, room, mark):
    for way in _WAYS:
        assert len(way(".".join(parts), room, mark)) <= room


def test_shares_have_one_decimal():
    parts = [Fraction(0), Fraction(1, 10_000), Fraction(127, 1000), Fraction(9_996, 10_000), None]
    assert [sentences.share(part) for part in parts] == ["0%", "<0.1%", "12.7%", "100%", ""]
    assert sentences.share(Fraction(10, 9)) == "111.1%"  # of a layer that costs more
    edges = [Fraction(50_000 + by, 10**8) for by in (-1, 0)]
    assert [sentences.share(part) for part in edges] == ["<0.1%", "0.1%"]
    assert [sentences.share(1 - part) for part in edges] == ["100%", "100%"]
    assert sentences.share(1 - edges[1] - edges[0]) == "99.9%"


def test_a_network_folds_only_rows_that_are_numbered_and_alike():
    report = dscalc.network("mobilenet_v1")
    assert "sep7/1-5" in report.sheet().names
    assert tree.folded_list(report.rows)[7].kind == "5 x separable 3x3"
