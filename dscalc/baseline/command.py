"""``--baseline FILE``: the earlier report that ``network`` and ``model`` are held against."""

import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dscalc.core.blocks import Block
from dscalc.core.fields import Command
from dscalc.core.row import Row
from dscalc.errors import DscalcError

if TYPE_CHECKING:  # few runs have one
    from dscalc.baseline.earlier import Baseline


@dataclass(init=False, eq=False, repr=False)
class BaselineOptions:
    """What the answer is held against."""

    baseline: Annotated[
        Path | None,
        typer.Option(
            "--baseline",
            metavar="FILE",
            readable=False,
            help="Show what changed since this JSON report, such as the main branch's. --assert "
            "can use it: 'macs <= 1.05 * baseline'.",
            rich_help_panel="Output",
        ),
    ] = None

    def read(
        self,
        ctx: typer.Context,
        command: Command,
        block: Block,
        otherwise: Callable[[bytes], list[Row]] | None = None,
    ) -> "Baseline | None":
        """The baseline, if there is one; ``otherwise`` reads a file that is no report.

        Raises:
            DscalcError: as `read_baseline`.
        """
        if self.baseline is None:
            return None
        from dscalc.baseline.earlier import read_baseline

        return read_baseline(
            str(self.baseline), command, block, question=_question(ctx), otherwise=otherwise
        )

    def refuse_several(self) -> None:
        """There is no one total to hold against the baseline.

        Raises:
            DscalcError: a baseline is given.
        """
        if self.baseline is not None:
            raise DscalcError("--baseline compares one network or model; give only one")


def options_given(ctx: typer.Context) -> list[str]:
    """The options of a command line that are not as they are by default."""
    given = [parameter for parameter, _ in _given(ctx)]
    return [max(one.opts, key=len) for one in given if one.param_type_name == "option"]


def _given(ctx: typer.Context) -> Iterator[tuple[Any, Any]]:
    """The parameters that are not as they are by default, and their values."""
    for parameter in ctx.command.params:
        value = ctx.params.get(parameter.name or "")
        if value not in (None, [], ()) and value != parameter.get_default(ctx):
            yield parameter, value


def _question(ctx: typer.Context) -> str:
    """The command line that asks the same again, without how the answer is shown and checked."""
    said = [*ctx.command_path.split()]
    for parameter, value in _given(ctx):
        if getattr(parameter, "rich_help_panel", None) not in ("Output", "Rows"):
            said += _spelled(parameter, value)
    return shlex.join(said)


def _spelled(parameter: Any, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [parameter.opts[0] if value else parameter.secondary_opts[0]]
    each = [str(part) for part in (value if isinstance(value, list | tuple) else [value])]
    if parameter.param_type_name == "argument":
        return each
    return [word for part in each for word in (max(parameter.opts, key=len), part)]
