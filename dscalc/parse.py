"""Text to values: 3, 3x5, same, 60M, 1/8."""

import re
from fractions import Fraction
from typing import Any, Literal

from dscalc.errors import DscalcError
from dscalc.show import quoted

Size = int | tuple[int, ...]
Padding = Literal["same", "valid"] | Size

_MOST_DIGITS = 100  # keeps products of a layer's numbers below Python's 4300-digit limit
_WHOLE = re.compile(r"[+-]?[0-9]+")
_NUMBER = r"([+-]?[0-9]*\.?[0-9]+(?:e[+-]?[0-9]{1,3})?(?:/[0-9]+)?)\s*(?:([KMGTP])(I?)|(%))?"
_BETWEEN_SIZES = r"(?:\s*[,*xX\N{MULTIPLICATION SIGN}]\s*|\s+)"
_ANY_SHAPE = re.compile(rf"[(\[]?\s*[1-9]\d*(?:{_BETWEEN_SIZES}[1-9]\d*)+\s*[)\]]?")
_NOUN = r"\s*(?:macc?s?|m(?:ult?-?)?adds?|flops?|ops?|b|bytes?|params?|parameters?|[a-z])?"
THOUSANDS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5}  # powers of 1000 by letter
WORDS = {  # the same letters by word
    "thousand": "K", "million": "M", "mio": "M", "billion": "G", "bn": "G", "trillion": "T",
    "kilo": "K", "mega": "M", "giga": "G", "tera": "T", "peta": "P",
}  # fmt: skip


def whole(text: str, name: str, least: int = 1, such_as: int = 64) -> int:
    """A whole number such as 64.

    Raises:
        DscalcError: the text is not one, is below ``least``, or has more than 100 digits.
    """
    text = text.strip()
    if not _WHOLE.fullmatch(text):
        raise DscalcError(f"{name} must be a whole number such as {such_as}, got {quoted(text)}")
    if len(text) > _MOST_DIGITS:
        raise DscalcError(f"{name} must have at most {_MOST_DIGITS} digits, got {len(text)}")
    if int(text) < least:
        raise DscalcError(f"{name} must be at least {least}, got {text}")
    return int(text)


def size(text: str, name: str, least: int = 1) -> Size:
    """A size: 3 for every axis, or one number per axis, such as 3x5.

    Raises:
        DscalcError: a part is not a whole number of at least ``least``.
    """
    parts = with_x(text.strip()).split("x")
    if not all(_WHOLE.fullmatch(part) for part in parts):
        meant = shape_meant(text)
        write = f"; write {meant}" if meant else ""
        raise DscalcError(f"{name} must be a size such as 3 or 3x5, got {quoted(text)}{write}")
    sizes = tuple(whole(part, name, least) for part in parts)
    return sizes if len(sizes) > 1 else sizes[0]


def with_x(text: str) -> str:
    """The text with x for multiplication signs and X."""
    return text.replace("\N{MULTIPLICATION SIGN}", "x").replace("X", "x")


def shape(text: str, name: str) -> tuple[int, ...]:
    """The shape of a tensor without its batch: 3x224x224.

    Raises:
        DscalcError: the text is not a shape.
    """
    try:
        value = size(text, name)
    except DscalcError:
        raise DscalcError(f"{name} must be a shape such as 3x224x224, got {quoted(text)}") from None
    return (value,) if isinstance(value, int) else value


def shape_meant(text: str) -> str:
    """The shape 3x224x224 that is spelled otherwise, as in (1, 3, 224, 224); "" if none is.

    A 1 before three sizes is taken for the batch.
    """
    if not _ANY_SHAPE.fullmatch(text.strip()):
        return ""
    sizes = re.findall(r"\d+", text)
    return "x".join(sizes[1:] if len(sizes) == 4 and sizes[0] == "1" else sizes)


def keywords(text: str, name: str) -> dict[str, Any]:
    """A JSON object as keyword arguments: {"width": 64}.

    Raises:
        DscalcError: the text is not a JSON object.
    """
    from json import loads

    try:
        value = loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise DscalcError(
            f"{name} must be a JSON object such as '{{\"width\": 64}}', got {quoted(text)}"
            f"{_json_meant(text)}"
        )
    return value


def _json_meant(text: str) -> str:
    """How to write width=64 or {'width': 64} in JSON, as the end of a sentence."""
    from ast import literal_eval
    from json import dumps

    try:
        meant = dumps(literal_eval(re.sub(r"^(\w+)\s*[=:](.*)$", r"{'\1':\2}", text.strip())))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return ""
    return f"; write '{meant}'" if meant.startswith("{") else ""


def padding(text: str, name: str) -> Padding:
    """``same``, ``valid``, or the zeros at each end of an axis: 1 or 1x2.

    Raises:
        DscalcError: the text is none of these.
    """
    if text.lower() == "same":  # TensorFlow writes SAME
        return "same"
    if text.lower() == "valid":
        return "valid"
    try:
        return size(text, name, least=0)
    except DscalcError:
        raise DscalcError(
            f"{name} must be same, valid (none) or a size of 0 or more, such as 1 or 1x2, "
            f"got {quoted(text)}"
        ) from None


def number(text: str, name: str, such_as: str = "60M, 320Ki, 0.125 or 1/8") -> Fraction:
    """An exact number: 60M, 1.5G, 1/8, 12.5%, 1e9; K is 1000, Ki 1024, up to P and Pi.

    Raises:
        DscalcError: the text is not a number, or has more than 100 digits.
    """
    match = re.fullmatch(_NUMBER, text.strip(), re.I | re.A)
    try:
        if not match:
            raise ValueError
        times: int = (1024 if match[3] else 1000) ** THOUSANDS[(match[2] or "").upper()]
        value = Fraction(match[1]) * times / (100 if match[4] else 1)
    except (ValueError, ZeroDivisionError):
        write = f"; write {meant}" if (meant := _number_meant(text.strip())) else ""
        raise DscalcError(
            f"{name} must be a number such as {such_as}, got {quoted(text)}{write}"
        ) from None
    if max(abs(value.numerator), value.denominator) > 10**_MOST_DIGITS:
        raise DscalcError(f"{name} must have at most {_MOST_DIGITS} digits, got {quoted(text)}")
    return value


def _number_meant(text: str) -> str:
    """The number that is written with a unit or a word, or with commas; "" if there is none."""
    if re.fullmatch(r"[1-9]\d{0,2}([,_' ])\d{3}(?:\1\d{3})+", text, re.A):
        return re.sub(r"\D", "", text)
    if worded := re.fullmatch(rf"(.*?)\s*({'|'.join(WORDS)})s?{_NOUN}", text, re.I):
        text = worded[1] + WORDS[worded[2].lower()]
    meant = re.fullmatch(rf"{_NUMBER}{_NOUN}", text, re.I | re.A)
    return f"{meant[1]}{meant[2].upper()}{meant[3].lower()}" if meant and meant[2] else ""


def multiplier(text: str, name: str) -> Fraction:
    """A number greater than 0, such as 0.75 or 3/4.

    Raises:
        DscalcError: the text is not such a number.
    """
    value = number(text, name, "0.75 or 3/4")
    if value <= 0:
        raise DscalcError(f"{name} must be greater than 0, such as 0.75 or 3/4, got {quoted(text)}")
    return value


def multipliers(text: str, name: str) -> list[Fraction]:
    """A list of multipliers, such as 0.5,1; 0.25:1:0.25 is a range with both ends.

    Raises:
        DscalcError: an item is not a number greater than 0, or a range has no step, or over 1000
            values.
    """
    found: list[Fraction] = []
    for item in text.split(","):
        first, *rest = [multiplier(part, name) for part in item.split(":")]
        if not rest:
            found.append(first)
            continue
        if len(rest) != 2 or not 0 <= rest[0] - first <= 999 * rest[1]:
            raise DscalcError(
                f"{name} must be a range such as 0.25:1:0.25, of at most 1000 values, "
                f"got {quoted(item)}"
            )
        last, step = rest
        found += [first + number * step for number in range((last - first) // step + 1)]
    return found
