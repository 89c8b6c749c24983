"""Write what dscalc can write of its own documentation: ``python docs/tools/write_docs.py``.

In README.md and docs/ it runs every ``$`` line of the console blocks and writes down what that
prints, fills the parts between ``<!-- begin NAME ... -->`` and ``<!-- end NAME -->``, and draws the
pictures in docs/images. `test_docs.py` fails where this would change a file.

A comment before a block tells what to do with it:

- ``<!-- file: NAME -->`` saves the block under that name for the blocks that follow;
- ``<!-- needs: NAME ... -->`` leaves the block alone where such a program or module is missing.
"""

import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, chdir, contextmanager, redirect_stderr, redirect_stdout
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any, NamedTuple
from unittest.mock import patch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

import architectures
import draw_layers
import torch
from looks import LOOKS
from published import right_number, slips, with_stride_in_first_1x1
from torch import nn
from vocabulary import fields

from dscalc.baseline.view import change_fields
from dscalc.checks.verdict import Check
from dscalc.cli import main
from dscalc.commands.options import usual_block
from dscalc.core.blocks import SEPARABLE
from dscalc.core.fields import Field, Fields, training_fields
from dscalc.inputs.network_file import _ALWAYS, _COLUMNS
from dscalc.peers.conventions import ELSEWHERE, FLOAT32, OLDER, OPENMMLAB, TABLE, Convention
from dscalc.pytorch import audit
from dscalc.report.report import SCHEMA

IMAGES = ROOT / "docs/images"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PICTURES: dict[str, str | Callable[[], str]] = {
    "layer.svg": "dscalc 3 64 3 224 -f svg -o {}",
    "layers.svg": draw_layers.picture,
    "grid.svg": "dscalc 64 8:1024:x2 3,5,7 14 --plot {} --get mac_ratio",
    "memory.svg": (
        "dscalc model architectures:mobilenet_v2 --input 3x224x224 --get peak_bytes --plot {}"
    ),
    "network.svg": "dscalc network mobilenet_v1 --plot {} --get macs",
}

_FENCE = re.compile(r"(`{3,})([\w{}-]*)")
_COMMENT = re.compile(r"<!-- (file|needs): (.+) -->")
_BEGIN = re.compile(r"<!-- begin ([\w-]+)\b.*-->")


class Block(NamedTuple):
    """A fenced block: its lines are ``lines[first:last]`` of the page, counted from 0."""

    language: str
    first: int
    last: int
    text: str
    file: str | None
    runs: bool  # what it needs is there


def blocks(text: str) -> Iterator[Block]:
    """The fenced blocks of a page."""
    lines = text.split("\n")
    number, comments = 0, dict[str, str]()
    while number < len(lines):
        line = lines[number]
        number += 1
        if comment := _COMMENT.fullmatch(line):
            comments[comment[1]] = comment[2]
            continue
        if fence := _FENCE.match(line):
            last = lines.index(fence[1], number)
            body = "\n".join(lines[number:last])
            runs = all(map(_is_there, comments.get("needs", "").split()))
            yield Block(fence[2], number, last, body, comments.get("file"), runs)
            number = last + 1
        comments = {}


def _is_there(name: str) -> bool:
    if name in sys.stdlib_module_names:  # as sqlite3 is, and a program besides
        return shutil.which(name) is not None
    return bool(shutil.which(name) or find_spec(name))


@contextmanager
def workplace(folder: Path) -> Iterator[None]:
    """Work in a folder, with no trace of the developer's terminal, and tidy up after models."""
    before, folder = set(sys.modules), folder.resolve()
    on_closed_pipe = signal.getsignal(signal.SIGPIPE)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with ExitStack() as stack:
        stack.enter_context(chdir(folder))
        stack.enter_context(patch.object(sys, "path", [str(folder), *sys.path]))
        stack.enter_context(patch.object(sys.modules["__main__"], "__package__", None))
        stack.enter_context(patch.dict(os.environ))
        for name in LOOKS:
            os.environ.pop(name, None)
        os.environ.update(PATH=path, COLUMNS="80", PYTHONUTF8="1")
        if not find_spec("torchvision"):  # its ResNet-50, MobileNetV2 and ViT-B/16 count the same
            stand_in = {"torchvision": ModuleType(""), "torchvision.models": architectures}
            sys.modules.update(stand_in)
            stack.callback(lambda: [sys.modules.pop(name) for name in stand_in])
        try:
            yield
        finally:
            signal.signal(signal.SIGPIPE, on_closed_pipe)
            for name in set(sys.modules) - before:
                if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(folder)):
                    del sys.modules[name]


class Shell:
    """Runs command lines as a terminal would, and remembers the exit code."""

    def __init__(self) -> None:
        self.code = 0

    def run(self, line: str) -> str:
        """What a line prints, on stdout and stderr together."""
        if line == "echo $?":
            printed, self.code = f"{self.code}\n", 0
        elif _is_plain(line):
            printed = self.dscalc(shlex.split(line)[1:])
        else:
            done = subprocess.run(
                ["bash", "-c", line], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
            )
            printed, self.code = done.stdout.decode(), done.returncode
        return printed

    def dscalc(self, args: list[str]) -> str:
        """What dscalc prints, run in this process."""
        stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
        with (
            patch.object(sys, "argv", ["dscalc", *args]),
            redirect_stdout(stream),
            redirect_stderr(stream),
        ):
            self.code = main()
        stream.seek(0)
        return stream.read()


def _is_plain(line: str) -> bool:
    """Whether a line is a call of dscalc and nothing more: no pipe, no redirection."""
    words = shlex.shlex(line, posix=True, punctuation_chars=True)
    words.whitespace_split = True
    parts = list(words)
    special = {";", "|", "||", "&&", "<", ">", ">>", "(", ")"}
    return parts[0] == "dscalc" and not special & set(parts) and "$" not in line


def rewritten(page: str, shell: Shell) -> str:
    """A page with its console blocks and generated parts as they would be written now."""
    lines = page.split("\n")
    offset = 0
    for block in blocks(page):
        if block.file:
            Path(block.file).write_text(block.text + "\n", encoding="utf-8")
        if block.language == "console" and block.runs:
            new = list(_session(block.text, shell))
            lines[block.first + offset : block.last + offset] = new
            offset += len(new) - (block.last - block.first)
    return _filled("\n".join(lines), shell)


def _session(text: str, shell: Shell) -> Iterator[str]:
    """The lines of a console block, its output replaced by what its commands print."""
    lines = text.split("\n")
    number = 0
    while number < len(lines):
        line = lines[number]
        number += 1
        if not line.startswith("$ "):
            continue  # output of before
        yield line
        command = line[2:]
        while number < len(lines) and lines[number].startswith("> "):
            yield lines[number]
            command += "\n" + lines[number][2:]
            number += 1
        printed = shell.run(command.replace("\\\n", ""))
        yield from (shown.rstrip() for shown in printed.splitlines())  # editors cut blanks off


def _filled(page: str, shell: Shell) -> str:
    """A page with the parts between markers written anew; those of other scripts stay."""
    parts: list[str] = []
    end = ""
    for line in page.split("\n"):
        if end and line != end:
            continue
        end = ""
        parts.append(line)
        if (begin := _BEGIN.fullmatch(line)) and begin[1] in GENERATED:
            parts += ["", *GENERATED[begin[1]](shell), ""]
            end = f"<!-- end {begin[1]} -->"
    return "\n".join(parts)


# The command line


def commands(shell: Shell) -> list[str]:
    """The commands, from the program's own help."""
    listed = shell.dscalc(["--help"]).partition("Commands:\n")[2].partition("\n\n")[0]
    return [line.split()[0] for line in listed.splitlines() if line[2:3].strip()]


def _help(shell: Shell) -> Iterator[str]:
    for command in ("", *commands(shell)):
        name = f"dscalc {command}".rstrip()
        yield from (f"## {name}", "", "```text")
        yield from (line.rstrip() for line in shell.dscalc([*name.split()[1:], "-h"]).splitlines())
        yield from ("```", "")


def _networks(shell: Shell) -> Iterator[str]:
    yield from ("| name | network | source |", "|:--|:--|:--|")
    for line in shell.dscalc(["network", "--list"]).splitlines():
        name, title = line.split(maxsplit=1)
        network, _, source = title.partition(": ")
        yield f"| `{name}` | {network} | {source} |"


# Fields

COMMANDS = ("compare", "blocks", "network", "model", "bench")


def known(command: str) -> Fields:
    """The fields of a command with options that add some: a block, a step of training."""
    return _vocabulary(command, usual_block(command) or SEPARABLE)


def _vocabulary(command: str, block: Any) -> Fields:
    return (
        training_fields(block, "macs", nonzero=True)
        if command == "model"
        else fields(command, block)
    )


_EVERY = (
    "`check` has [its own](#fields-of-check). The ratios are there where something is replaced: in"
    " `network` and `model` with `--as`."
)


def _fields(shell: Shell) -> Iterator[str]:
    """A table of those that every command has, then one of each command."""
    told = [{(field.name, field.doc) for field in known(command)} for command in COMMANDS]
    shared = set.intersection(*told)
    every = [field for field in known("compare") if (field.name, field.doc) in shared]
    yield from ("## Fields of every command", "", _EVERY, "", *_rows(every))
    for command in COMMANDS:
        own = [field for field in known(command) if (field.name, field.doc) not in shared]
        names = fields(command, usual_block(command) or SEPARABLE).names
        step = [field for field in own if field.name not in names]
        asked = [
            field
            for field in own
            if usual_block(command) is None and _needs_as(command, field) and field not in step
        ]
        plain = [field for field in own if field not in (*asked, *step)]
        yield from ("", f"## Fields of {command}", "", *_rows(plain))
        if asked:
            yield from ("", f"With `--as separable`, `{command}` also has:", "", *_rows(asked))
        nonzero = [field for field in step if field.name.startswith("nonzero_")]
        for if_it, added in (
            ("Where an option names one of them, such as `--get nonzero_macs`", nonzero),
            ("With `--backward`", [field for field in step if field not in nonzero]),
        ):
            if added:
                yield from ("", f"{if_it}, `model` also has:", "", *_rows(added))
    yield from ("", "## Fields of a change", "", *_rows(change_fields("macs")))
    yield from ("", "## Fields of check", "", *_rows(known("check")))


def _needs_as(command: str, field: Field) -> bool:
    return field.name not in _vocabulary(command, None).names


JSON_TYPES = {
    int: "integer",
    float: "number",
    Fraction: "number",
    str: "string",
    bool: "true, false",
    tuple: "integers",
    list: "objects",
    dict: "object",
    object: "any",
}


def _rows(told: Iterable[Field]) -> Iterator[str]:
    yield "| name | meaning | unit | in JSON |"
    yield "|:--|:--|:--|:--|"
    for field in told:
        doc = field.doc.replace("|", "/")
        yield f"| `{field.name}` | {doc} | {field.unit} | {JSON_TYPES[field.type]} |"


# JSON

OBJECTS = {
    "json-compare": "3 64 3 224 --assert 'mac_ratio <= 1/8'",
    "json-blocks": "blocks 64 64 3 56 --only separable",
    "json-network": "network tiny.csv --as standard",
    "json-model": "model tiny.py:net --input 3x32x32",
    "json-check": "check tiny.toml -q",
}


ANSWERS = {
    **{name.removeprefix("json-"): command for name, command in OBJECTS.items()},
    "--baseline": f"{OBJECTS['json-network']} --baseline tiny.csv",
    "--explain": "3 64 3 224 --explain 86704128",
    "--peers": f"{OBJECTS['json-model']} --peers",
    "--bits": f"{OBJECTS['json-model']} --bits 8",
}
KEYS = {
    "schema": f"`{SCHEMA}`",
    "version": "of dscalc",
    "convention": "what is counted, in one sentence",
    "command": "`compare`, `blocks`, `network`, `model`, `bench` or `check`",
    "as": "the block of `--as`, given or by default, which rows are rewritten as; `null` without"
    " one; in `blocks` it is `standard`, which each block is compared with",
    "inputs": "the shapes that a model or network was counted on; `null` if each row has its own",
    "bits": "of a floating element in all that is said of memory",
    "rows": "the rows, with the [fields](fields.md) of the command",
    "total": "[the total](fields.md#the-total); `null` if rows are alternatives",
    "baseline": "the `file`, its `total`, and the `changes`, with the"
    " [fields of a change](fields.md#fields-of-a-change)",
    "explain": "the number, and the `answers`: which counters give it, and from what",
    "macs": "the MACs that the counters are compared with",
    "peers": "what each counter prints, and its `differences`",
    "notes": "what a reader must know, one sentence each: what did not run, what has no formula,"
    " what was left out",
    "checks": "each assertion: " + ", ".join(f"`{name}`" for name in Check._fields),
}


def _keys(shell: Shell) -> Iterator[str]:
    """What the keys of an answer mean, and which answers have them."""
    keys = {name: set(_answered(command, shell)) for name, command in ANSWERS.items()}
    if unsaid := set.union(*keys.values()) ^ set(KEYS):
        raise ValueError(f"KEYS and the answers differ: {unsaid}")
    yield from ("| key | value | in |", "|:--|:--|:--|")
    for key, value in KEYS.items():
        having = [name for name, own in keys.items() if key in own]
        lacking = [name for name in keys if name not in having]
        some, but = (having, "") if len(having) < len(lacking) else (lacking, "all but ")
        where = but + ", ".join(f"`{name}`" for name in some) if some else "all"
        yield f"| `{key}` | {value} | {where} |"


def _answered(command: str, shell: Shell) -> dict[str, Any]:
    """The JSON of a command line, without what stands on stderr after it."""
    text = shell.dscalc([*shlex.split(command), "-f", "json"])
    answer: dict[str, Any] = json.JSONDecoder().raw_decode(text)[0]
    return answer


def _object(command: str) -> Callable[[Shell], Iterator[str]]:
    """What a command answers as JSON, laid out with one key a line."""

    def written(shell: Shell) -> Iterator[str]:
        yield f"`dscalc {command} -f json`:"
        yield from ("", "```json", *_laid_out(_answered(command, shell)).splitlines(), "```")

    return written


def _laid_out(value: Any, margin: str = "") -> str:
    """Objects and lists of objects over many lines, all else on one."""
    inner = margin + "  "
    if isinstance(value, dict):
        parts = [f"{json.dumps(key)}: {_laid_out(part, inner)}" for key, part in value.items()]
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        parts = [_laid_out(part, inner) for part in value]
    else:
        return json.dumps(value)
    first, last = "{}" if isinstance(value, dict) else "[]"
    body = ",\n".join(f"{inner}{part}" for part in parts)
    return f"{first}\n{body}\n{margin}{last}"


# Markdown, as it looks


def _notebook(shell: Shell) -> Iterator[str]:
    """The first table of Python's page, where it ends the cell of a notebook."""
    net = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 256, 3, stride=2))
    yield from _quoted(audit(net, torch.zeros(1, 3, 32, 32))._repr_markdown_())


def _comment(shell: Shell) -> Iterator[str]:
    """The file that the command before it has written for a pull request."""
    yield from _quoted(Path("cost.md").read_text("utf-8"))


def _quoted(markdown: str) -> Iterator[str]:
    yield from (f"> {line}".rstrip() for line in markdown.rstrip().split("\n"))


# Network files


def _columns(shell: Shell) -> Iterator[str]:
    """What a row of each kind may say, besides what every row may: the parser's own table."""
    kinds: dict[str, list[str]] = {}
    for kind, columns in _COLUMNS.items():
        own = ", ".join(f"`{column}`" for column in sorted(columns - _ALWAYS))
        kinds.setdefault(own, []).append(f"`{kind}`")
    yield from ("| kind | columns |", "|:--|:--|")
    for own, named in kinds.items():
        yield f"| {', '.join(named)} | {own or 'none'} |"
    every = ", ".join(f"`{column}`" for column in sorted(_ALWAYS))
    yield f"| every kind, too | {every} |"


# Counters


PRODUCTS = {
    "conv": "convolutions",
    "transposed": "transposed convolutions",
    "linear": "linear layers",
    "matmul": "matrix products",
    "attention": "attention",
}


def _conventions(shell: Shell) -> Iterator[str]:
    """What each counter of the table adds up: the usual ones, older ones, those of elsewhere."""
    older = {entry.name for entry in TABLE if entry.assumes in (OLDER, FLOAT32)}
    elsewhere = {entry.name for entry in TABLE if entry.assumes in (ELSEWHERE, OPENMMLAB)}
    for heading, chosen in (
        ("Counters of today", {entry.name for entry in TABLE} - older - elsewhere),
        ("Older ones", older),
        ("Of other frameworks, and of OpenMMLab's models", elsewhere),
    ):
        yield from ("", f"### {heading}", "")
        yield f"| counter | {' | '.join(PRODUCTS)} | besides |"
        yield "|:--|:-:|:-:|:-:|:-:|:-:|:--|"
        yield from (_convention(entry) for entry in TABLE if entry.name in chosen)


def _convention(entry: Convention) -> str:
    """The row of a counter: how often it counts each product, and what besides."""
    words = [term.words for term in entry.products]

    def times(kind: str) -> str:
        if f"{kind} at output positions" in words:
            return "out"
        again = f"{kind} a second time" in words
        return str(entry.per_mac * (1 + again)) if kind in words else ""

    products = " | ".join(map(times, PRODUCTS.values()))
    besides = [word for word in words if word == "recurrent layers"]
    besides += [term.words for term in entry.besides]
    owner, repository, *_ = entry.source.split(",")[0].split("/")
    link = f"[{entry.name}](https://github.com/{owner}/{repository})"
    return f"| {link} | {products} | {'; '.join(besides)} |"


# Published tables


class Printed(NamedTuple):
    """A number as it is printed somewhere, and how to have dscalc print its own."""

    what: str
    text: str  # such as "4.2 M"
    command: str
    field: str
    edit: Callable[[str], str] | None = None  # of a shipped network, before it is read


def _without_fc(network: str) -> str:
    return "\n".join(line for line in network.splitlines() if not line.startswith("fc,"))


V1, V2 = "network mobilenet_v1", "network mobilenet_v2"
PLAIN_V1 = f"{V1} --as standard"
PUBLISHED: dict[str, list[Printed]] = {
    "mobilenet-v1-table-3": [
        Printed("convolution, mult-adds", "462 M", "512 512 3 14", "standard_macs"),
        Printed("convolution, parameters", "2.36 M", "512 512 3 14", "standard_params"),
        Printed("depthwise separable, mult-adds", "52.3 M", "512 512 3 14", "separable_macs"),
        Printed("depthwise separable, parameters", "0.27 M", "512 512 3 14", "separable_params"),
    ],
    "mobilenet-v1-table-4": [
        Printed("Conv MobileNet, mult-adds", "4866 M", PLAIN_V1, "standard_macs"),
        Printed("the same without `fc`", "4866 M", PLAIN_V1, "standard_macs", _without_fc),
        Printed("Conv MobileNet, parameters", "29.3 M", PLAIN_V1, "standard_params"),
        Printed("MobileNet, mult-adds", "569 M", V1, "macs"),
        Printed("MobileNet, parameters", "4.2 M", V1, "params"),
    ],
    "mobilenet-v1-table-6": [
        Printed("1.0, mult-adds", "569 M", V1, "macs"),
        Printed("1.0, parameters", "4.2 M", V1, "params"),
        Printed("0.75, mult-adds", "325 M", f"{V1} --width-multiplier 0.75", "macs"),
        Printed("0.5, mult-adds", "149 M", f"{V1} --width-multiplier 0.5", "macs"),
        Printed("0.5, parameters", "1.3 M", f"{V1} --width-multiplier 0.5", "params"),
    ],
    "mobilenet-v1-table-7": [
        Printed("224, mult-adds", "569 M", V1, "macs"),
        Printed("160, mult-adds", "290 M", f"{V1} --input-size 160", "macs"),
        Printed("160, parameters", "4.2 M", f"{V1} --input-size 160", "params"),
    ],
    "mobilenet-v2": [
        Printed("paper, mult-adds", "300 M", V2, "macs"),
        Printed("paper, parameters", "3.4 M", V2, "params"),
    ]
    + [
        Printed(
            f"{width}, {size}, {what}",
            f"{printed} M",
            f"{V2} --width-multiplier {width} --input-size {size}",
            field,
        )
        for width, size, macs, params in [
            ("1.4", 224, "582", "6.06"),
            ("1.0", 224, "300", "3.47"),
            ("1.0", 160, "154", "3.47"),
            ("0.75", 224, "209", "2.61"),
            ("0.75", 160, "107", "2.61"),
            ("0.5", 224, "97", "1.95"),
            ("0.5", 160, "50", "1.95"),
            ("0.35", 224, "59", "1.66"),
            ("0.35", 160, "30", "1.66"),
        ]
        for what, printed, field in [
            ("mult-adds", macs, "macs"),
            ("parameters", params, "params"),
        ]
        if (what, size) != ("parameters", 160)
    ],
    "xception": [
        Printed("parameters", "22,855,952", "network xception", "params"),
    ],
    "convnext": [
        Printed("ConvNeXt-T, FLOPs", "4.5 G", "network convnext_tiny", "macs"),
        Printed("ConvNeXt-T, parameters", "28.6 M", "network convnext_tiny", "params"),
    ],
    "resnet-50": [
        Printed(
            "ResNet paper, FLOPs", "3.8 G", "network resnet50", "macs",
            with_stride_in_first_1x1,
        ),
        Printed("ResNeXt paper, FLOPs", "4.1 G", "network resnet50", "macs"),
        Printed("ResNeXt paper, parameters", "25.5 M", "network resnet50", "params"),
        Printed("ConvNeXt paper, FLOPs", "4.09 G", "network resnet50", "macs"),
    ],
}  # fmt: skip


def answered(printed: Printed, shell: Shell) -> int:
    """What dscalc prints for a published number."""
    args = printed.command.split()
    if printed.edit:
        shipped = ROOT / f"dscalc/inputs/networks/{args[1]}.csv"
        args[1] = f"{args[1]}_edited.csv"
        Path(args[1]).write_text(printed.edit(shipped.read_text("utf-8")), encoding="utf-8")
    return int(shell.dscalc([*args, "--get", printed.field]))


def agreement(printed: Printed, ours: int) -> str:
    """How a printed number comes from ours: exact, rounded, truncated, or it differs."""
    number, _, unit = printed.text.replace(",", "").partition(" ")
    if not unit:
        return "exact" if int(number) == ours else _difference(Fraction(number), ours)
    scale = {"M": 10**6, "G": 10**9}[unit]
    last_digit = Fraction(scale, 10 ** len(number.partition(".")[2]))
    digits = Fraction(number) * scale / last_digit
    if round(ours / last_digit) == digits:
        return "rounded"
    if ours // last_digit == digits:
        return "truncated"
    return _difference(Fraction(number) * scale, ours)


def _difference(printed: Fraction, ours: int) -> str:
    return f"differs by {float(abs(ours - printed) / ours):.2%}"


def _published(rows: list[Printed]) -> Callable[[Shell], Iterator[str]]:
    def table(shell: Shell) -> Iterator[str]:
        yield "| | printed | dscalc | printed is | from |"
        yield "|:--|--:|--:|:--|:--|"
        for row in rows:
            ours = answered(row, shell)
            source = f"`dscalc {row.command}`" if not row.edit else "an edited copy"
            cells = [row.what, row.text, f"{ours:,}", agreement(row, ours), source]
            yield f"| {' | '.join(cells)} |"

    return table


def _slips(shell: Shell) -> Iterator[str]:
    yield "| page | layer | number | printed | right | what was done | from |"
    yield "|:--|:--|:--|--:|--:|:--|:--|"
    for slip in slips():
        right = right_number(slip, lambda command: shell.dscalc(shlex.split(command)))
        page = f"[{slip['source']}]({slip['address']})" if slip["address"] else slip["source"]
        done = slip["done"] + (f": `{slip['sum']}`" if "sum" in slip else "")
        printed = slip["printed"] if isinstance(slip["printed"], str) else f"{slip['printed']:,}"
        commands = " / ".join(f"`dscalc {asked.partition(' --get')[0]}`" for asked in slip["from"])
        cells = [page, slip["layer"], slip["what"], printed, f"{right:,}", done, commands]
        yield f"| {' | '.join(cells)} |"
    yield from ("", "The network files that these commands read:")
    for slip in slips():
        for name, text in slip.get("files", {}).items():
            yield from ("", f"`{name}`:", "", "```text", *text.splitlines(), "```")


GENERATED: dict[str, Callable[[Shell], Iterator[str]]] = {
    "help": _help,
    "networks": _networks,
    "notebook": _notebook,
    "comment": _comment,
    "fields": _fields,
    "slips": _slips,
    "conventions": _conventions,
    "columns": _columns,
    "json-keys": _keys,
    **{name: _object(command) for name, command in OBJECTS.items()},
    **{name: _published(rows) for name, rows in PUBLISHED.items()},
}


def _write() -> None:
    IMAGES.mkdir(exist_ok=True)
    for page in PAGES:
        with TemporaryDirectory() as folder, workplace(Path(folder)):
            before = page.read_text("utf-8")
            after = rewritten(before, Shell())
        if after != before:
            page.write_text(after, encoding="utf-8")
            sys.stdout.write(f"wrote {page.relative_to(ROOT)}\n")
    with TemporaryDirectory() as folder, workplace(Path(folder)):
        for name, by in PICTURES.items():
            picture = drawn(name, by)
            if not (IMAGES / name).exists() or (IMAGES / name).read_text("utf-8") != picture:
                (IMAGES / name).write_text(picture, encoding="utf-8")
                sys.stdout.write(f"drew docs/images/{name}\n")


def drawn(name: str, by: str | Callable[[], str]) -> str:
    """The picture that a command or a function draws."""
    if not isinstance(by, str):
        return by()
    Shell().dscalc(shlex.split(by.format(name))[1:])
    return Path(name).read_text("utf-8")


if __name__ == "__main__":
    _write()
