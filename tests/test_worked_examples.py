"""What a learner types first, with a page open: the numbers of the page, or the way to them."""

from collections import Counter
from fractions import Fraction
from math import prod

import pytest
from published import right_number, save_files, slips, worked_examples

EXAMPLES = worked_examples()
SLIPS = slips()
SCREEN_OF_0_1_0 = 14  # lines of dscalc 512 512 3 14


def words(line):
    return {word.rstrip(",;:") for word in line.split()}


def shown(text, lines):
    """Whether all words of a text stand on one line."""
    return any(words(text) <= words(line) for line in lines)


@pytest.fixture
def screen(run, here):
    """The lines that some commands print."""

    def screen(commands):
        results = [run(command) for command in commands]
        return [line for r in results for line in (r.stdout + r.stderr).splitlines()]

    return screen


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example["id"])
def test_an_example_is_answered_at_first_or_one_of_two_lines_says_how(example, screen):
    save_files(example)
    lines = screen(example["first"])
    texts = list(example["on"].values())
    how = "at first try"
    if not all(shown(text, lines) for text in texts):
        how = "by a pointer"
        points = example["points"]
        assert [point for point in points if not any(point in line for line in lines)] == []
        assert len({line for line in lines if any(point in line for point in points)}) <= 2
        for command in example["then"]:
            assert any(point.removeprefix("dscalc ") in command for point in points)
        lines += screen(example["then"])
        assert [text for text in texts if not shown(text, lines)] == []
    assert example["answered"] == how + (", but not all" if "left" in example else "")


def test_most_examples_are_answered_whole():
    ways = Counter(example["answered"] for example in EXAMPLES)
    assert (ways["at first try"], ways["by a pointer"]) == (14, 13)
    left = {example["id"]: list(example["left"]) for example in EXAMPLES if "left" in example}
    assert left == {
        "kr-width": ["ratio"],
        "fastai-5x5": ["a5", "a3", "two_a"],
        "lenet-c1": ["connections"],
        "ptflops-98": ["gflops"],
    }


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example["id"])
def test_an_example_looks_for_what_its_page_prints(example):
    """Numbers in full as they are; what is rounded or in words has a text of its own."""
    assert set(example["printed"]) == {*example["on"], *example.get("left", {})}
    for name, text in example["on"].items():
        if isinstance(printed := example["printed"][name], int):
            assert f"{printed:,}" in words(text)


def test_pointers_cost_no_more_than_a_line(run):
    assert len(run("512 512 3 14").stdout.splitlines()) <= SCREEN_OF_0_1_0 + 1


@pytest.mark.parametrize("slip", SLIPS, ids=lambda slip: slip["id"])
def test_we_do_not_repeat_a_slip(slip, run, here):
    assert right_number(slip, lambda command: run(command).stdout) == slip["right"]
    assert slip["printed"] != slip["right"]
    for command, count in slip.get("also", {}).items():
        assert f"{int(run(command).stdout):,}" == count
        assert count in slip["done"]
    if "sum" in slip:
        terms = [term.split("*") for term in slip["sum"].split(" + ")]
        wrong = sum(prod(map(int, factors)) for factors in terms)
        printed = slip["printed"]
        if isinstance(printed, str):
            printed, wrong = Fraction(printed.removesuffix(" M")), round(Fraction(wrong, 10**6))
        assert wrong == printed
