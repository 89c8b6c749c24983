"""Numbers that papers, documentation and other tools print, and how they come from ours.

Where they stand: layers and whole networks in ``data/published_*.json``, each with its source. A
figure is a string as it is printed, such as ``4.24M``, or a number that is printed in full.
"""

import json
import re
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

Agreement = Literal["exact", "rounded", "truncated", "no"]

_DATA = Path(__file__).parent / "data"
_UNITS = {"": 1, "M": 10**6, "G": 10**9}


def figures(of: Literal["layers", "networks"]) -> list[dict[str, Any]]:
    """What is published of layers or of networks."""
    found: list[dict[str, Any]] = json.loads((_DATA / f"published_{of}.json").read_text("utf-8"))
    return found


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
