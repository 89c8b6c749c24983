"""The command line: parse -> call -> show -> exit code."""

import gc
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from dscalc import slices
from dscalc._version import __version__
from dscalc.commands.options import Run, SectionedCommand, with_groups
from dscalc.errors import DscalcError, FileError
from dscalc.report.file import to_stdout
from dscalc.show import command_line, message_of, printable

_COMMANDS = {  # name: module and summary
    "compare": (
        "dscalc.commands.compare",
        "Compare one layer, or a grid of layers, with its replacement.",
    ),
    "blocks": (
        "dscalc.commands.list_blocks",
        "List every way to build a layer, cheapest first.",
    ),
    "network": ("dscalc.commands.network", "Add up a list of layers."),
    "model": ("dscalc.commands.model", "Audit your own torch model."),
    **slices.commands(),
    "check": ("dscalc.commands.check", "Check every budget of a project in one run."),
}
_EXAMPLES = """\b
Examples:
  dscalc 3 64 3 224
  dscalc 64 32:1024:x2 3,5,7 14
  dscalc blocks 256 256 3 56
  dscalc network mobilenet_v1
  dscalc model mymodels.py:Net --input 3x224x224
  dscalc check
"""
_EXIT_CODES = """\b
Exit codes: 0 answered, and every check passes; 1 an assertion fails, a
cross-check differs, or nothing is found; 2 no answer; 130 interrupted
"""


class _CompareByDefault(TyperGroup):
    """Reads ``dscalc 3 64 3 224`` as ``dscalc compare 3 64 3 224``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        own = {option for parameter in self.get_params(ctx) for option in parameter.opts}
        if args and args[0] not in own and not args[0][:1].isalpha():
            args = ["compare", *args]
        return super().parse_args(ctx, args)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line, ``sys.argv`` by default, and return the exit code."""
    if hasattr(signal, "SIGPIPE"):  # a closed pipe ends it in silence, like any filter
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None or stream.closed:  # the parent process closed it
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115  # until the exit
        getattr(sys, name).reconfigure(errors="backslashreplace")
    args = sys.argv[1:] if argv is None else list(argv)
    gc.set_threshold(50_000)  # rows hold no cycles, and a grid makes millions
    try:
        with command_line(), to_stdout():  # other code reports errors of files
            answer = _asked(args or ["--help"])
            code: int = answer if isinstance(answer, int) else answer.write()
        return _interrupted() if code == 130 else code if args else 2
    except KeyboardInterrupt:
        return _interrupted()
    except Exception as error:
        _trace(error, args)
        _write_to_stderr(_in_one_line(error, args))
        return 2


def _asked(args: list[str]) -> Any:
    """The answer to a command line, not yet written; or an exit code."""
    run = Run(args, _answered, _write_to_stderr)
    program = _program(_command(args))
    return program(args, prog_name="dscalc", standalone_mode=False, obj=run)


def _answered(args: list[str]) -> Any:
    """The answer to the command line of a budget, not yet written.

    Raises:
        DscalcError: there is no answer; the message is that of the command line.
    """
    try:
        answer = _asked(args)
    except Exception as error:
        _trace(error, args)
        raise DscalcError(_in_one_line(error, args).strip().replace("error: ", "")) from error
    if isinstance(answer, int):
        raise DscalcError("run printed no report")
    return answer


def _write_to_stderr(line: str) -> None:
    with suppress(OSError):  # the exit code says enough
        sys.stderr.write(line)


def _trace(error: Exception, args: list[str]) -> None:
    """If --verbose is given, print the traceback of an error."""
    verbose = any(arg == "--verbose" or (arg[:2] in ("-v", "-q") and "v" in arg) for arg in args)
    if verbose and not _is_usage(error):
        import traceback

        traceback.print_exception(error)


def _interrupted() -> int:
    """Say so, and return the exit code 130; ``exec`` keeps Python from dying by the signal.

    Python does so if the interrupt came inside an earlier ``exec``; another ``exec`` resets that.
    """
    exec("")
    _write_to_stderr("interrupted\n")
    return 130


@cache  # a check runs many budgets
def _program(command: str) -> Any:
    """The program with one command, or with all if ``command`` is "", for help and completion."""
    app = typer.Typer(
        cls=_CompareByDefault,
        context_settings={"help_option_names": ["-h", "--help"]},
        rich_markup_mode=None,  # its panels cut long option names short
        pretty_exceptions_enable=False,
    )
    app.callback(epilog=f"{_EXAMPLES}{slices.examples('')}\n{_EXIT_CODES}")(_group)
    for name in [command] if command else _COMMANDS:
        place, summary = _COMMANDS[name]
        module = import_module(place)
        epilog = f"\b\nExamples:{module.EXAMPLES}{slices.examples(name)}\n{_EXIT_CODES}"
        register = app.command(cls=SectionedCommand, epilog=epilog, short_help=summary)
        register(with_groups(getattr(module, name)))
    return typer.main.get_command(app)


def _command(args: list[str]) -> str:
    """The command of a command line; "" if only the parser can tell."""
    first = args[0] if args else ""
    if first in _COMMANDS:
        return first
    return "compare" if first[:1].isdigit() else ""


def _is_usage(error: Exception) -> bool:
    """Whether the parser raised the error; typer has no public name for its class."""
    return hasattr(error, "format_message")


def _in_one_line(error: Exception, args: list[str]) -> str:
    if isinstance(error, FileError):
        return f"{error}\n"
    if isinstance(error, DscalcError):
        reason = str(error)
    elif _is_usage(error):
        from dscalc.commands.meant import usage_in_words

        reason = usage_in_words(error, args, _command(args), lambda: _program("").commands)
    else:
        reason = (
            f"{type(error).__name__}: {message_of(error)}; this is a bug in dscalc; -v shows where"
        )
    return f"error: {printable(reason)}\n"


def _print_version(ctx: typer.Context, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:  # set while a shell completes
        sys.stdout.write(f"dscalc {__version__}\n")
        raise typer.Exit


def _group(
    version: Annotated[
        bool,
        typer.Option(
            "--version", "-V", is_eager=True, callback=_print_version, help="Show the version."
        ),
    ] = False,
) -> None:
    """Compute exact MACs and parameters of a convolution and its depthwise separable replacement.

    dscalc IC OC F D is short for dscalc compare IC OC F D: input channels, output channels,
    filter size and input feature map size, as in dscalc 3 64 3 224.
    """
