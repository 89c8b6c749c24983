"""The slices: one folder per question, with all code that answers it.

No module outside a slice imports it. This table lists what a slice adds to the command line and to
Python; its modules are found by name. If you delete a folder and its entry, everything else works.
"""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, NamedTuple


class Slice(NamedTuple):
    """The parts of a slice.

    Args:
        commands: summary of each command. A command is the function of that name in
            ``FOLDER/command.py``, beside its ``EXAMPLES`` and ``FIELDS``.
        options_of: commands that get its options, ``OPTIONS`` in ``FOLDER/option.py``.
        numbers: names that an assertion may use if the option of that name is given.
        calls: Python functions in ``FOLDER/call.py``, which ``dscalc`` exports.
        examples: command lines for the help of other commands, by command; "" is ``dscalc``.
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
    "citation": Slice(options_of=("compare", "network", "model"), calls=("cite",)),
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
    """The commands of all slices: name -> module and summary."""
    return {
        name: (f"dscalc.{folder}.command", summary)
        for folder, slice_ in SLICES.items()
        for name, summary in slice_.commands.items()
    }


def options(command: str) -> Iterator[type[Any]]:
    """The options that slices add to a command, one dataclass each."""
    for folder, slice_ in SLICES.items():
        if command in slice_.options_of:
            yield import_module(f"dscalc.{folder}.option").OPTIONS


def examples(command: str) -> str:
    """Example command lines that slices add to a command's help, one per line."""
    lines = (slice_.examples.get(command) for slice_ in SLICES.values())
    return "".join(f"  {line}\n" for line in lines if line)


def numbers() -> dict[str, str]:
    """Names that an assertion may use -> the error if the option is missing."""
    return {
        name: f"{name} needs --{name} FILE, an option of {' and '.join(slice_.options_of)}"
        for slice_ in SLICES.values()
        for name in slice_.numbers
    }


def find_call(name: str) -> Any:
    """The Python function of a slice by name; None if there is none."""
    for folder, slice_ in SLICES.items():
        if name in slice_.calls:
            return getattr(import_module(f"dscalc.{folder}.call"), name)
    return None
