"""The slices: questions that have a folder each, with all that answers them.

Nothing outside a slice imports it. This table says what of the command line and of Python is its;
the rest is found there by name. Delete a folder and its line, and everything else works.
"""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, NamedTuple


class Slice(NamedTuple):
    """What belongs to a folder.

    Args:
        commands: what each of its commands does, in a line; each is a function of that name in
            ``FOLDER/command.py``, beside its ``EXAMPLES`` and ``FIELDS``.
        options_of: commands that have its options, which ``options`` of ``FOLDER/option.py`` gives.
        numbers: what an assertion may name where the option of the same name is given.
        calls: its functions in Python, each in ``FOLDER/call.py``, which ``dscalc`` exports.
        examples: command lines for the help of other commands; "" is that of ``dscalc``.
    """

    commands: Mapping[str, str] = {}
    options_of: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    calls: tuple[str, ...] = ()
    examples: Mapping[str, str] = {}


SLICES = {
    "bench": Slice(
        commands={"bench": "Time a layer and its replacement on this machine."},
        calls=("benchmark",),
        examples={"": "dscalc bench 512 512 3 14"},
    ),
    "peers": Slice(options_of=("compare", "network", "model"), calls=("explain", "counters")),
    "cite": Slice(options_of=("compare", "network", "model"), calls=("cite",)),
    "baseline": Slice(
        options_of=("network", "model"),
        numbers=("baseline",),
        calls=("changes_since",),
        examples={
            "network": "dscalc network mynet.csv --baseline main.json --assert 'macs <= baseline'",
            "model": "dscalc model mymodels.py:Net --input 3x224x224 --baseline main.json",
        },
    ),
}


def commands() -> dict[str, tuple[str, str]]:
    """The commands of all slices: the module of each, and what it does in a line."""
    return {
        name: (f"dscalc.{folder}.command", summary)
        for folder, slice_ in SLICES.items()
        for name, summary in slice_.commands.items()
    }


def options(command: str) -> Iterator[type[Any]]:
    """The options that slices give a command: a dataclass each."""
    for folder, slice_ in SLICES.items():
        if command in slice_.options_of:
            yield import_module(f"dscalc.{folder}.option").options(command)


def examples(command: str) -> str:
    """Command lines for its help, a line each."""
    lines = (slice_.examples.get(command) for slice_ in SLICES.values())
    return "".join(f"  {line}\n" for line in lines if line)


def numbers() -> dict[str, str]:
    """What an assertion may name, and what it needs for that."""
    return {
        name: f"{name} needs --{name} FILE, an option of {' and '.join(slice_.options_of)}"
        for slice_ in SLICES.values()
        for name in slice_.numbers
    }


def find_call(name: str) -> Any:
    """A function of a slice in Python, by its name; None if there is none."""
    for folder, slice_ in SLICES.items():
        if name in slice_.calls:
            return getattr(import_module(f"dscalc.{folder}.call"), name)
    return None
