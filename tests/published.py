"""Numbers that papers, documentation and other tools print, and how they come from ours.

Where they stand: layers and whole networks in ``data/published_*.json``, each with its source. A
figure is a string as it is printed, such as ``4.24M``, or a number that is printed in full.
``data/worked_examples.json`` has what pages work out, ``data/slips.json`` where they are wrong.
"""

import json
import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

Agreement = Literal["exact", "rounded", "truncated", "no"]

_DATA = Path(__file__).parent / "data"
_UNITS = {"": 1, "M": 10**6, "G": 10**9}


def figures(of: Literal["layers", "networks"]) -> list[dict[str, Any]]:
    """What is published of layers or of networks."""
    return _read(f"published_{of}")


def worked_examples() -> list[dict[str, Any]]:
    """What pages work out, the command typed first and the one that a line of it points to.

    ``on`` tells for each number that a page prints which words stand on one line of the screen;
    ``left`` why a number stands on none.
    """
    return _read("worked_examples")


def slips() -> list[dict[str, Any]]:
    """Numbers in pages that are wrong, and the commands that give the right ones.

    With two commands it is the ratio of their answers; ``sum`` is what was added up instead, and
    ``also`` what else is said and which commands answer it.
    """
    return _read("slips")


def _read(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((_DATA / f"{name}.json").read_text("utf-8"))
    return found


def save_files(example: dict[str, Any]) -> None:
    """Put the network files of an example into the working folder."""
    for name, text in example.get("files", {}).items():
        Path(name).write_text(text, encoding="utf-8")


def right_number(slip: dict[str, Any], answer: Callable[[str], str]) -> int | float:
    """What the program answers where a page is wrong."""
    save_files(slip)
    first, *others = [Fraction(answer(command)) for command in slip["from"]]
    value = first / others[0] if others else first
    return int(value) if value == int(value) else float(f"{float(value):.4g}")


def read(printed: str) -> tuple[int, Fraction]:
    """The digits of a figure such as 4.24M or 22,855,952, and what the last of them is worth."""
    match = re.fullmatch(r"([0-9,]+)\.?([0-9]*) ?([MG]?)", printed)
    assert match, printed
    whole, decimals, unit = match.groups()
    return int(whole.replace(",", "") + decimals), Fraction(_UNITS[unit], 10 ** len(decimals))


def agreement(printed: str, ours: int) -> Agreement:
    """How a printed figure comes from our count.

    Some round to the last digit that they print and some cut off what follows; where both give
    the same it is rounded. A number that is printed in full is ours exactly or not at all.
    """
    digits, last = read(printed)
    if last == 1:
        return "exact" if digits == ours else "no"
    if (ours + last / 2) // last == digits:
        return "rounded"
    return "truncated" if ours // last == digits else "no"


def with_stride_in_first_1x1(text):
    """ResNet-50 as its paper has it: blocks that halve the map do so in their first 1x1."""

    def steps(block):
        name, oc, source = block[1], int(block[2]), block[3]
        first = f"{name}a,conv,,{oc // 4},1,2,,each,,,,,8\n{name}b,conv,,{oc // 4},3,,,each,,,,,8\n"
        return f"{first}{name},conv,,{oc},1,,,each,,,,{source},8"

    text, moved = re.subn(r"(?m)^(conv\d_1),bottleneck:4,,(\d+),3,2,,each,,,,(\w*),8$", steps, text)
    assert moved == 3
    return text
