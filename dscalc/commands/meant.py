"""What somebody meant who typed what dscalc does not know; a hint works as it is typed."""

import ast
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from dscalc import parse
from dscalc.commands.options import options_by_name, usual_block
from dscalc.core.blocks import block_meant
from dscalc.errors import DscalcError
from dscalc.inputs.model_file import program_file
from dscalc.show import did_you_mean, printable, quoted

_LAYER_FORM = "a layer is IC OC F [D], such as 3 64 3 224"
_MISSING = {  # the command -> what it is about
    "model": "a model is MODULE:ATTR, such as mymodels.py:Net",
    "network": "dscalc network --list names those that ship",
}
_LIBRARIES = "torchvision.models", "timm.models"  # whose models people ask for by name
_OTHER_SPELLINGS = {  # an option -> what other tools call it
    "--input": "input-size input-shape input-res input-dim shape size img-size image-size imgsz",
    "--input-size": "input input-shape input-res shape size resolution img-size image-size imgsz",
    "--batch": "batch-size bs",
    "--width-multiplier": "alpha width width-mult",
    "--resolution-multiplier": "rho resolution",
    "--as": "block rewrite replace",
    "--output": "out save file",
    "--where": "filter",
    "--sort": "sort-by order-by",
    "--top": "limit head max-rows",
    "--depth": "max-depth level levels",
    "--no-verify": "no-check skip-verify",
    "--assert 'macs <= 600M'": "max-macs budget threshold check fail-if",
}
_SIZE_NAMES = "in-channels out-channels kernel-size kernel filter input-size map ic oc f d"
_VALUES = {
    "md": "markdown", "txt": "table", "fp16": "float16", "half": "float16", "fp32": "float32",
    "float": "float32", "long": "int64", "gpu": "cuda", "gflops": "flops", "mflops": "flops",
    "gmacs": "macs", "mmacs": "macs",
}  # fmt: skip


def usage_in_words(
    error: Any, args: Sequence[str], command: str, commands: Callable[[], Mapping[str, Any]]
) -> str:
    """An error of the parser in the words of dscalc.

    Args:
        error: the error.
        args: the command line.
        command: its command.
        commands: gives all commands by name.
    """
    option = getattr(error, "option_name", "")
    if option[1:2].isdigit():  # a negative number; the parser took one digit
        negative = next(arg for arg in args if arg.startswith(option))
        return f"IC, OC, F and D must be at least 1, got {negative}"
    said = error.format_message()
    reason = f"{said[0].lower()}{said[1:].rstrip('.')}"
    own = error.ctx.command if error.ctx else commands().get(command)
    path = error.ctx.command_path if error.ctx else f"dscalc {command}".strip()
    words = [arg for arg in args if arg != command and arg[:1] != "-"]
    if reason.startswith("no such option"):
        reason = _unknown_option(option, args, own, commands)
    elif reason.startswith("no such command") and not reason.endswith("?"):
        reason += f"; {_first_word_meant(args)}"
    elif reason.startswith("missing argument"):
        reason += f"; {_missing(command, words)}"
    elif extra := re.fullmatch(r"got unexpected extra argument\(?s?\)? \((.+)\)", reason):
        reason += f"; {_extra(extra[1].split(), own)}"
    elif choice := re.fullmatch(r"(invalid .*: '(.*)' is not one of )(.*)", reason, re.DOTALL):
        value = choice[2].strip("=").lower()
        near = did_you_mean(_VALUES.get(value, value), choice[3].strip("'").split("', '"), "")
        reason += f"; {near}" if near else ""
    elif flag := re.fullmatch(r"option '(--.*)' does not take a value", reason):
        reason += f"; give {' or '.join([flag[1], *options_by_name(own)[flag[1]].secondary_opts])}"
    if parsers := re.fullmatch(r"(.*)\. did you mean '(.*)'\?", reason, re.I):
        names = parsers[2].replace("', '", " or ")
        reason = f"{parsers[1]}; did you mean {names}?"
    return reason if reason.endswith("?") else f"{reason}; see {path} --help"


def command_for(word: str) -> str:
    """The command that takes such a word; "" if none does."""
    from dscalc.inputs.network_file import shipped

    ending = Path(word).suffix.lower()
    if word in shipped() or ending in (".csv", ".jsonl"):
        return "network"
    if ending == ".toml":
        return "check"
    return "model" if ending.startswith(".py") or (":" in word and word[:1].isalpha()) else ""


def refuse_for(command: str, word: str) -> None:
    """Refuse a word that another command takes.

    Raises:
        DscalcError: there is such a command.
    """
    if (other := command_for(word)) not in ("", command):
        whole = word if ":" in word else ":".join([word, *names_in(word)[:1]])
        raise DscalcError(
            f"dscalc {command} does not take {quoted(word)}; did you mean dscalc {other} "
            f"{printable(whole)}?"
        )


def refuse_target(word: str) -> None:
    """Refuse a word that names no model, before torch is imported.

    Raises:
        DscalcError: it is not ``MODULE:ATTR``, nor the file of an exported program.
    """
    module, _, attribute = word.rpartition(":")
    if program_file(word) or (module and attribute):
        return
    meant = []
    if shape := parse.shape_meant(word):
        meant = [f"--input {shape}"]
    elif word[:1] in "\N{EN DASH}\N{EM DASH}":
        meant = [f"--{word[1:]}"]
    elif word.endswith(".py"):
        meant = [f"{word}:{name}" for name in names_in(word)[:3]]
    elif re.fullmatch(r"\w+(\.\w+)+", word) and not command_for(word):
        meant = [":".join(word.rsplit(".", 1))]
    else:
        meant = [
            *_of_libraries(word),
            *([f"dscalc {c} {word}"] if (c := command_for(word)) else []),
        ]
    hint = f"; did you mean {printable(' or '.join(meant))}?" if meant else ""
    raise DscalcError(
        f"a model must be MODULE:ATTR, such as mymodels.py:Net, got {quoted(word)}{hint}"
    )


def refuse_source(word: str) -> None:
    """Refuse a word that names no network, but something else.

    Raises:
        DscalcError: it does.
    """
    if word == "-" or command_for(word) == "network":
        return
    refuse_for("network", word)
    refused = word.isidentifier() and len(word) < 100 and not Path(word).exists()
    if refused and (found := _of_libraries(word)):
        raise DscalcError(
            f"no network or file named {quoted(word)}; did you mean dscalc model "
            f"{' or '.join(found)} --input 3x224x224?"
        )


def names_in(file: str) -> list[str]:
    """The public names at the top of a Python file, classes first; none if it cannot be read."""
    with suppress(OSError, SyntaxError, ValueError):
        body = ast.parse(Path(file).read_text("utf-8")).body
        classes = [node.name for node in body if isinstance(node, ast.ClassDef)]
        functions = [node.name for node in body if isinstance(node, ast.FunctionDef)]
        assigned = [
            target.id
            for node in body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        ]
        return [name for name in (*classes, *functions, *assigned) if name[0] != "_"]
    return []


def _of_libraries(word: str) -> list[str]:
    """The models of that name in the libraries that are installed, as ``MODULE:ATTR``."""
    found = []
    for library in _LIBRARIES if word.isidentifier() else ():
        with suppress(Exception):  # a broken installation can raise anything
            if callable(getattr(import_module(library), word)):
                found.append(f"{library}:{word}")
    return found


def _first_word_meant(args: Sequence[str]) -> str:
    word, *rest = args
    if word == "help":
        return f"did you mean dscalc {' '.join([*rest[:1], '--help'])}?"
    if word == "version":
        return "did you mean dscalc --version?"
    if command := command_for(word):
        return f"did you mean dscalc {command} {word}?"
    if not rest or rest[0].startswith("-"):
        refuse_source(word)
        return f"{_LAYER_FORM}; a model is dscalc model MODULE:ATTR"
    return _LAYER_FORM


def _missing(command: str, words: Sequence[str]) -> str:
    if command in _MISSING:
        return _MISSING[command]
    if words and (other := command_for(words[0])):
        return f"did you mean dscalc {other} {' '.join(words)}?"
    parts = re.split("[x,]", words[0]) if len(words) == 1 else []
    if len(parts) in (3, 4) and all(part.isdigit() for part in parts):
        return f"did you mean dscalc {command} {' '.join(parts)}?"
    return _LAYER_FORM


def _extra(words: Sequence[str], command: Any) -> str:
    name = words[0].lstrip("-\N{EN DASH}\N{EM DASH}")
    if f"--{name}" in options_by_name(command):
        return f"did you mean {' '.join([f'--{name}', *words[1:2]])}?"
    if command.name == "check":
        return "give one file"
    if not name.isdigit():
        return _LAYER_FORM
    return f"a map that is not square is one argument, such as 224x{words[0]}"


def _unknown_option(
    option: str,
    args: Sequence[str],
    command: Any,
    commands: Callable[[], Mapping[str, Any]],
) -> str:
    """Name the option that was meant, or the commands that have such an option."""
    typed = next((arg for arg in args if arg.startswith(option)), option).partition("=")[0]
    having = [
        f"dscalc {name}" for name, each in commands().items() if typed in options_by_name(each)
    ]
    if meant := next(_options_meant(typed, command, elsewhere=bool(having)), ""):
        return f"no such option: {typed}; did you mean {meant}?"
    if having:
        last = having.pop()
        they_have = f"{', '.join(having)} and {last} have it" if having else f"{last} has it"
        return f"no such option here: {typed}; {they_have}"
    word = typed.lstrip("-").replace("-", "_")
    if fields := [name for name in _fields_of(command) if f"_{name}".endswith(f"_{word}")]:
        named = [word] if word in fields else fields[:2]
        near = f"did you mean --get {' or --get '.join(named)}?"
    elif len(word) == 1:
        first = [name for name in options_by_name(command) if name.startswith(f"--{word}")]
        near = f"did you mean {' or '.join(first[:3])}?" if first else ""
    else:
        near = did_you_mean(typed, options_by_name(command), "", cutoff=0.7)
    return f"no such option: {typed}{f'; {near}' if near else ''}"


def _options_meant(typed: str, command: Any, *, elsewhere: bool) -> Iterator[str]:
    """Options of the command that other words stand for; blocks unless it is one elsewhere."""
    options, word = options_by_name(command), typed.lstrip("-").lower().replace("_", "-")
    if f"--{word}" in options:
        yield f"--{word}"
    if "ic" in {parameter.name for parameter in command.params} and word in _SIZE_NAMES.split():
        yield "IC OC F [D] without names, such as 3 64 3 224"
    for option, words in _OTHER_SPELLINGS.items():
        if option.partition(" ")[0] in options and word in words.split():
            yield option
    value = _VALUES.get(word, word)
    for parameter in command.params:
        if value in getattr(parameter.type, "choices", ()):
            yield f"{parameter.opts[0]} {value}"
    takes_blocks = "--as" if "--as" in options else "--only" if command.name == "blocks" else ""
    if takes_blocks and not elsewhere and (block := block_meant(word)):
        yield f"{takes_blocks} {block}"


def _fields_of(command: Any) -> list[str]:
    """The fields that --get of a command can name."""
    vocabulary = getattr(sys.modules.get(command.callback.__module__), "FIELDS", None)
    if vocabulary is None or "--get" not in options_by_name(command):
        return []
    names: list[str] = vocabulary(usual_block(command.name), "macs").names
    return names
