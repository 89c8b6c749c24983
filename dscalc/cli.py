"""The command line: parse -> call -> show -> exit code."""

import gc
import os
import re
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
from dscalc.show import did_you_mean, message_of, printable

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
Exit codes:
  0    answered, and every check passes
  1    an assertion fails, a cross-check differs, or a search finds nothing
  2    no answer: bad usage or input, or torch or fvcore cannot count it
  130  interrupted
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
        with to_stdout():  # other code reports errors of files
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
    """The exit code 130; ``exec`` keeps Python from dying by the signal.

    Python does so if the interrupt came inside an earlier ``exec``; another ``exec`` resets that.
    """
    exec("")
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
        reason = _usage_error(error, args)
    else:
        reason = (
            f"{type(error).__name__}: {message_of(error)}; this is a bug in dscalc; -v shows where"
        )
    return f"error: {printable(reason)}\n"


def _usage_error(error: Any, args: list[str]) -> str:
    """The parser's error in the words of dscalc."""
    option = getattr(error, "option_name", "")
    if option[1:2].isdigit():  # a negative number; the parser took one digit
        negative = next(arg for arg in args if arg.startswith(option))
        return f"IC, OC, F and D must be at least 1, got {negative}"
    said = error.format_message()
    reason = f"{said[0].lower()}{said[1:].rstrip('.')}"
    command = error.ctx.command_path if error.ctx else f"dscalc {_command(args)}".strip()
    if "missing argument" in reason and command.endswith(("compare", "blocks", "bench")):
        reason += "; a layer is IC OC F [D], such as 3 64 3 224"
    if reason.startswith("no such command") and not reason.endswith("?"):
        reason += f"; {_meant(args[0])}"
    if near := re.fullmatch(r"(.*)\. did you mean '(.*)'\?", reason, re.I):
        names = near[2].replace("', '", " or ")
        reason = f"{near[1]}; did you mean {names}?"
    if reason.startswith("no such option"):
        reason = _no_option(option, error.possibilities or [])
    if extra := re.fullmatch(r"got unexpected extra argument\(?s?\)? \((\d+)\)", reason):
        reason += f"; a map that is not square is one argument, such as 224x{extra[1]}"
    return f"{reason}{' See' if reason.endswith('?') else '; see'} {command} --help"


def _no_option(option: str, possible: list[str]) -> str:
    """The other commands that have an option; without any, the nearest options."""
    having = [
        f"dscalc {name}"
        for name, command in _program("").commands.items()
        if any(
            option in (*parameter.opts, *parameter.secondary_opts) for parameter in command.params
        )
    ]
    if having:
        last = having.pop()
        named = f"{', '.join(having)} and {last} have it" if having else f"{last} has it"
        return f"no such option here: {option}; {named}"
    near = did_you_mean(option, possible, f"did you mean {' or '.join(possible)}?", cutoff=0.7)
    return f"no such option: {option}{f'; {near}' if possible else ''}"


def _meant(word: str) -> str:
    """A hint at the meaning of a first word that is not a command."""
    from dscalc.inputs.network_file import shipped

    if word in shipped() or word.endswith((".csv", ".jsonl")):
        return f"did you mean dscalc network {word}?"
    if ":" in word:
        return f"did you mean dscalc model {word}?"
    return "a layer is IC OC F [D], such as 3 64 3 224"


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
