"""The rows of a model as a tree of modules, folded until it is read at a glance.

Siblings that are alike become one line (0-11, 12 x EncoderBlock), as in ``print(ModuleList)``; then
modules below some depth are summed, at the deepest level that leaves at most 30 lines. Lines
without parts add up to the total.
"""

import re
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property

from dscalc.core.kinds import kind_and_size
from dscalc.core.row import Row, module

MOST_LINES = 30  # that a table has by itself
_TOO_FEW = 4  # lines: a table of fewer is folded one level less
_PARAMS = Fraction(1, 100)  # of all: from here on something without MACs is shown
_CONTAINERS = ("Sequential", "ModuleList", "ModuleDict")
_CALLED_OFTEN = ("matmul", "attention")  # whose number of calls says nothing


@dataclass(frozen=True)
class TableLine:
    """A line of a table.

    Attributes:
        name: what it is called below the line that it is a part of.
        path: its module path in full.
        indent: how many lines it is a part of.
        kind: what it is: its kind and size, or its class.
        rows: of which it is the sum.
        is_module: whether it stands for a module, of which ``kind`` is the class.
        has_parts: whether its parts are lines too.
    """

    name: str
    path: str
    indent: int
    kind: str
    rows: Sequence[Row]
    is_module: bool = False
    has_parts: bool = False

    @cached_property
    def row(self) -> Row:
        """Its rows together; of a layer that is there several times, its sizes."""
        if len(self.rows) == 1:
            return self.rows[0]
        together = module(self.path, self.kind, self.rows)
        if self.is_module:
            return together
        first = self.rows[0]
        return together._replace(kind=first.kind, layer=first.layer, kept=first.kept)


def flat_line(row: Row, *, is_module: bool = False) -> TableLine:
    """A row by itself, which may be the sum of a module."""
    kind = row.kind if is_module else _row_kind([row])
    return TableLine(row.name or "", row.name or "", 0, kind, [row], is_module)


def folded_list(rows: Iterable[Row]) -> list[TableLine]:
    """Rows of a list, those that are numbered and alike as one: block4/1-3, 3 x inverted 3x3."""
    nodes = [_Node(row.name or "", own=[[row]]) for row in rows]
    folded = _folded_siblings(nodes, _Signatures())
    return [
        TableLine(node.name, node.name, 0, _row_kind(node.own[0]), node.own[0]) for node in folded
    ]


def is_seen(row: Row, least: Fraction | int) -> bool:
    """Whether it has MACs, or MACs that are not known, or at least so many params."""
    return bool(row.as_is.cost.macs or row.unknown) or row.as_is.cost.params >= least > 0


def least_params(rows: Iterable[Row]) -> Fraction:
    """How many params are shown even without MACs."""
    return _PARAMS * sum(row.as_is.cost.params for row in rows)


class Tree:
    """The modules of a model.

    Args:
        rows: of the model, named by module paths.
        classes: of what class the module at each path is.
        fold: whether alike siblings become one.
    """

    def __init__(self, rows: Sequence[Row], classes: Mapping[str, str], *, fold: bool) -> None:
        self._least = least_params(rows)
        self._root = _tree(rows, classes)
        if fold:
            self._root.fold(_Signatures())
        self._root.finish(self._least)
        self.deepest = max(1, self._root.depth)

    def lines(self, depth: int | None) -> list[TableLine]:
        """Its lines, down to so many parts of module paths; all if that is None."""
        own = [group for group in self._root.own if self._is_seen(group)]
        lines = [_own_line(group, 0, "") for group in own]
        for node in self._root.children:
            if node.is_seen:
                lines += self._lines_of(node, depth)
        return lines if len(lines) > 1 or not own else [flat_line(own[0][0])]

    def fitting_depth(self) -> int | None:
        """The deepest level with at most 30 lines; None if the whole tree has no more.

        The least of those with as many lines; one more if these are few, and that has at most 60.
        """
        lengths = {depth: len(self.lines(depth)) for depth in range(1, self.deepest + 1)}
        fit = max((at for at, length in lengths.items() if length <= MOST_LINES), default=1)
        fit = min(at for at, length in lengths.items() if length == lengths[fit])
        if lengths[fit] < _TOO_FEW and fit < self.deepest and lengths[fit + 1] <= 2 * MOST_LINES:
            fit += 1
        return fit if lengths[fit] < lengths[self.deepest] else None

    def _is_seen(self, group: Sequence[Row]) -> bool:
        return is_seen(group[0], self._least)

    def _lines_of(
        self,
        node: "_Node",
        limit: int | None,
        depth: int = 1,
        indent: int = 0,
        lead: str = "",
        above: tuple[str, int] = ("", 1),
        within: str = "",
    ) -> Iterator[TableLine]:
        """The line of a module, then those of its own operators and of its parts.

        A module that has one part only is joined with it: ``lead`` is the name, and ``above`` the
        class and number, of those that are joined so far. ``within`` is the path of the module
        above.
        """
        kind, number = above
        if not kind or number != node.count or node.kind not in _CONTAINERS:
            kind = node.kind
        own = [group for group in node.own if self._is_seen(group)]
        parts = [child for child in node.children if child.is_seen]
        path = f"{within}.{node.name}" if within else node.name
        name, ends = lead + node.name, limit is not None and depth >= limit
        if not parts and len(own) == 1:
            yield TableLine(name, path, indent, _row_kind(own[0]), own[0])
            return
        if not own and len(parts) == 1 and (not ends or node.rows_seen == 1):
            joined = kind, node.count
            yield from self._lines_of(parts[0], limit, depth + 1, indent, f"{name}.", joined, path)
            return
        unfolded = not ends and bool(own or parts)
        kind = f"{node.count} x {kind}" if node.count > 1 else kind
        yield TableLine(name, path, indent, kind, node.all_rows, is_module=True, has_parts=unfolded)
        if unfolded:
            yield from (_own_line(group, indent + 1, path) for group in own)
            for part in parts:
                yield from self._lines_of(part, limit, depth + 1, indent + 1, within=path)


@dataclass
class _Node:
    """A module, or several that are alike: rows of its own, each in all of them, and its parts."""

    name: str
    kind: str = ""
    own: list[list[Row]] = field(default_factory=list)
    children: list["_Node"] = field(default_factory=list)
    count: int = 1
    all_rows: list[Row] = field(default_factory=list)
    rows_seen: int = 0
    is_seen: bool = False

    @property
    def depth(self) -> int:
        """How many levels are below it."""
        return 1 + max(child.depth for child in self.children) if self.children else 0

    def fold(self, signatures: "_Signatures") -> None:
        """Make one of each run of parts that are alike."""
        for child in self.children:
            child.fold(signatures)
        self.children = _folded_siblings(self.children, signatures)

    def finish(self, least: Fraction) -> int:
        """Gather all of its rows, work out what of it is shown, and return its params."""
        params = sum(child.finish(least) for child in self.children)
        params += sum(row.as_is.cost.params for group in self.own for row in group)
        self.all_rows = [row for group in self.own for row in group]
        self.rows_seen = sum(is_seen(group[0], least) for group in self.own)
        for child in self.children:
            self.all_rows += child.all_rows
            self.rows_seen += child.rows_seen
        self.is_seen = self.rows_seen > 0 or params >= least > 0
        return params


class _Signatures:
    """A number for each module: the same for those that look the same but for their names."""

    def __init__(self) -> None:
        self._numbers: dict[Hashable, int] = {}

    def of(self, node: _Node) -> int:
        looks = (
            node.kind,
            node.count,
            tuple(_look(group[0]) for group in node.own),
            tuple((child.name, self.of(child)) for child in node.children),
        )
        return self._numbers.setdefault(looks, len(self._numbers))


def _look(row: Row) -> Hashable:
    """All that is known of a row but its name, its share, its memory and its training."""
    after = row.rewritten.cost if row.rewritten else None
    sizes = (row.kind, row.layer, row.calls, row.as_is.cost, row.trainable_params, row.nonzero)
    return *sizes, after, row.kept, row.block, row.crosscheck, tuple(row.unknown.items())


def _tree(rows: Iterable[Row], classes: Mapping[str, str]) -> _Node:
    root = _Node("", classes.get("", ""))
    nodes = {"": root}

    def node_at(path: str) -> _Node:
        if path not in nodes:
            above, _, name = path.rpartition(".")
            nodes[path] = _Node(name, classes.get(path, ""))
            node_at(above).children.append(nodes[path])
        return nodes[path]

    for row in rows:
        path = row.name or ""
        node_at(path if path in classes else "").own.append([row])
    return root


def _folded_siblings(siblings: Sequence[_Node], signatures: _Signatures) -> list[_Node]:
    """Those that follow each other by number and are alike as one, named 0-11."""
    runs: list[list[_Node]] = []
    for node in siblings:
        last = runs[-1] if runs else []
        if last and _follows(last[-1], node) and signatures.of(last[-1]) == signatures.of(node):
            last.append(node)
        else:
            runs.append([node])
    return [_merged(run) if len(run) > 1 else run[0] for run in runs]


def _follows(one: _Node, other: _Node) -> bool:
    """Whether the name of the other is the next number; of a layer, nothing but a number."""
    (stem, number), (next_stem, next_number) = _numbered(one.name), _numbered(other.name)
    if number is None or next_number != number + 1 or stem != next_stem:
        return False
    return not stem or stem.endswith("/") or bool(one.children)


def _numbered(name: str) -> tuple[str, int | None]:
    found = re.fullmatch(r"(.*?)(\d+)", name)
    return (found[1], int(found[2])) if found else (name, None)


def _merged(nodes: Sequence[_Node]) -> _Node:
    """Modules that are alike as one."""
    first, last = nodes[0], nodes[-1]
    upto = f"-{_numbered(last.name)[1]}" if first.name != last.name else ""
    return _Node(
        first.name + upto,
        first.kind,
        [
            [row for group in groups for row in group]
            for groups in zip(*(n.own for n in nodes), strict=True)
        ],
        [_merged(parts) for parts in zip(*(node.children for node in nodes), strict=True)],
        sum(node.count for node in nodes),
    )


def _own_line(group: Sequence[Row], indent: int, path: str) -> TableLine:
    """An operator of a module itself, beside its parts."""
    name = f"({group[0].kind})"
    return TableLine(name, f"{path} {name}".lstrip(), indent, _row_kind(group), group)


def _row_kind(group: Sequence[Row]) -> str:
    """What a row is: 12 x conv 3x3; conv, 5 calls."""
    row = group[0]
    kind = kind_and_size(row.kind, row.layer.kernel_size, row.layer.groups)
    several = f"{len(group)} x " if len(group) > 1 else ""
    often = (row.calls or 1) > 1 and row.kind not in _CALLED_OFTEN
    return f"{several}{kind}{f', {row.calls} calls' if often else ''}"
