"""A model -> rows: every operator, as it is and rewritten, summed by module; and the proof."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Any

import torch
from torch import nn

from dscalc.core.blocks import SEPARABLE, Block, Step, why_kept
from dscalc.core.conv import Conv
from dscalc.core.cost import Cost, sum_costs
from dscalc.core.fields import UNITS, Unit, model_fields
from dscalc.core.patterns import Patterns
from dscalc.core.row import Counted, Crosscheck, Row, Side, Sizes, total, with_shares
from dscalc.core.transposed import TransposedConv
from dscalc.pytorch.crosscheck import count
from dscalc.pytorch.modules import CONVOLUTIONS
from dscalc.pytorch.rewrite import reasons_to_keep, replacement, replacements
from dscalc.pytorch.trace import Observe, Operator, Trace, trace_either
from dscalc.report.report import Report
from dscalc.show import plural, printable

_CountCalls = Callable[[tuple[Step, ...]], Counted]
_OUT_OF_REACH = ("subclass", "functional", "derived weight", "shared weight")
_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


def audit(
    model: nn.Module,
    *inputs: Any,
    block: Block | str = SEPARABLE,
    only: Patterns | None = None,
    exclude: Patterns | None = None,
    verify: bool = True,
    rebuild: Callable[[], nn.Module] | None = None,
    named: Mapping[str, Any] | None = None,
    observe: Observe | None = None,
    unit: Unit = "macs",
    **keywords: Any,
) -> Report:
    """Count every operator of a model, as it is and with its eligible convolutions rewritten.

    A copy is traced on the meta device, in evaluation mode and without gradients: nothing is
    computed, and the model, its device and all random states are left as they are. A model that
    needs values (control flow on results) runs on real tensors instead. Rows add up to the total,
    and the total is the model.

    Args:
        model: any module, on any device.
        *inputs: what its ``forward`` takes: tensors of any device, or shapes such as
            ``(1, 3, 224, 224)``.
        block: what convolutions are rewritten as.
        only: globs on module paths: only those are rewritten.
        exclude: globs on module paths to keep.
        verify: whether fvcore counts each distinct convolution and linear layer.
        rebuild: makes the model anew with values, if it was built on the meta device.
        named: what its ``forward`` takes by keyword, if `audit` has an argument of that name.
        observe: makes an observer of the run, whose result the report carries; see `trace`.
        unit: of the counts that people read: "macs", or "flops", 2 a MAC.
        **keywords: what its ``forward`` takes by keyword.

    Raises:
        DscalcError: the model cannot be copied or run on these inputs, or a glob matches nothing.
        CrosscheckError: fvcore cannot count one of its layers.
    """
    if isinstance(block, str):
        block = Block.parse(block, standard="what the model already has")
    args = tuple(_tensor(value) for value in inputs)
    kwargs = {name: _tensor(value) for name, value in {**(named or {}), **keywords}.items()}
    reasons: dict[str, str] = {}

    def blocks(copied: nn.Module) -> dict[str, nn.Module]:
        reasons.update(reasons_to_keep(copied, block, only, exclude))
        with torch.random.fork_rng(devices=[]):  # real blocks have weights, which are drawn
            return replacements(copied, reasons, lambda module: replacement(module, block))

    found, copied = trace_either(model, args, kwargs, rebuild, blocks=blocks, observe=observe)
    reasons |= dict.fromkeys(found.functional, "functional")
    counting = cache(count) if verify else None
    rows = list(_make_rows(copied, block, reasons, found, counting))
    label = UNITS[unit][0]
    whole, faults = _total_row(rows, copied, reasons, found, counting)
    if not found.unknown:
        rows = with_shares(rows)
    return Report(
        "model", block, model_fields(block, unit), rows, whole, title=type(model).__name__,
        notes=list(_notes(rows, block, found, copied, label, verified=verify)), faults=faults,
        unit=unit, extra=found.observed,
    )  # fmt: skip


def _tensor(value: Any) -> Any:
    """A tensor where a shape is given."""
    if isinstance(value, tuple | list) and value and all(type(n) is int for n in value):
        return torch.empty(*value, device="meta")
    return value


class _Books:
    """Who owns each parameter, and which are not yet in a row."""

    def __init__(self, model: nn.Module) -> None:
        self.owned: dict[str, int] = {}
        self.plain: dict[str, dict[str, nn.Parameter]] = {}  # a weight and a bias, and no more
        seen: set[int] = set()
        for path, module in model.named_modules():
            held = dict(module.named_parameters(recurse=False))
            own = [parameter for parameter in held.values() if id(parameter) not in seen]
            seen.update(map(id, own))
            if len(own) == len(held) and {"weight"} <= held.keys() <= {"weight", "bias"}:
                self.plain[path] = held
            if own:
                self.owned[path] = _size(own)

    def take(self, path: str) -> int:
        """Parameters of a module, which the first row that asks for them gets."""
        return self.owned.pop(path, 0)

    def by_formula(self, first: Operator, params: int) -> int:
        """What the layer should hold, by its sizes, if its weight and bias are all of these."""
        held, conv = self.plain.get(first.path, {}), first.conv
        if not params or not conv or first.weight is not held.get("weight"):
            return params
        return conv.cost.params if conv.bias == ("bias" in held) else params


def _make_rows(
    model: nn.Module,
    block: Block,
    reasons: Mapping[str, str],
    found: Trace,
    count: _CountCalls | None,
) -> Iterator[Row]:
    """A row for each module and kind of operator, then for each other module with parameters."""
    books = _Books(model)
    torch_agrees = not found.unknown and found.torch_macs == found.known_to_torch
    by_row = _by_row(found)
    for (path, kind), operators in by_row.items():
        params, unknown = books.take(path), tuple(found.unknown_in.get((path, kind), ()))
        kept = reasons.get(path, "functional" if kind == "conv" else kind)
        if unknown:
            kept = "MACs not known"
        convs = [operator.conv for operator in operators if operator.conv]
        countable = len(convs) == len(operators) and not unknown
        formula = Cost(0, books.by_formula(operators[0], params))
        before = Side(
            sum_costs(Cost(o.macs, 0, o.activations) for o in operators) + formula,
            counted=_count_rows_calls(convs, params, count) if countable else None,
        )
        side, agrees = before, not before.differences
        if not kept:
            side = _as_block(convs, block, count)
            ran = sum(operator.macs for operator in found.blocks[path].operators)
            agrees &= ran == side.cost.macs and not side.differences
        checked = before.counted or (torch_agrees and all(o.by_torch for o in operators))
        crosscheck: Crosscheck = "skipped"
        if count and not unknown and (checked or not agrees):
            crosscheck = "exact" if agrees else "mismatch"
        yield Row(
            printable(path) or "the model", kind, _shape(convs), before, side, kept,
            calls=len({operator.call for operator in operators}), crosscheck=crosscheck,
            unknown=unknown,
        )  # fmt: skip
    for (path, kind), names in found.unknown_in.items():
        if (path, kind) not in by_row:
            yield _without_macs(path, kind, books.take(path), kind, unknown=tuple(names))
    for path, params in books.owned.items():
        kind, ran = type(model.get_submodule(path)).__name__, path in found.ran
        yield _without_macs(path, kind, params, kind if ran else "did not run", calls=int(ran))


def _without_macs(path: str, kind: str, params: int, kept: str, **seen: Any) -> Row:
    side = Side(Cost(0, params))
    return Row(printable(path) or "the model", kind, Sizes(), side, side, kept, **seen)


def _by_row(traced: Trace) -> dict[tuple[str, str], list[Operator]]:
    """The operators of each row, which is a module path and a kind."""
    rows: dict[tuple[str, str], list[Operator]] = {}
    for operator in traced.operators:
        rows.setdefault((operator.path, operator.kind), []).append(operator)
    return rows


def _shape(convs: list[Conv]) -> Conv | Sizes:
    """What all calls have in common."""
    if not convs:
        return Sizes()
    first = convs[0]
    if first.kernel_size and all(conv == first for conv in convs):
        return first

    def common(name: str) -> Any:
        values = {getattr(conv, name) for conv in convs}
        return values.pop() if len(values) == 1 else None

    return Sizes(common("in_channels"), common("out_channels"), bias=common("bias"))


def _count_rows_calls(convs: list[Conv], params: int, count: _CountCalls | None) -> Counted | None:
    """What fvcore counts of the layers of a row, each call, and the parameters of one."""
    if count is None or not convs:
        return None
    macs = sum(count((Step("layer", conv, conv.cost),))[""].macs for conv in convs)
    return {"": Cost(macs, params)}


def _as_block(convs: list[Conv], block: Block, count: _CountCalls | None) -> Side:
    """What the calls of a convolution cost as a block, its parameters once, and what is counted."""
    calls = [block.steps(conv) for conv in convs]
    steps = []
    for each in zip(*calls, strict=True):
        cost = sum_costs(step.cost for step in each)._replace(params=each[0].cost.params)
        steps.append(each[0]._replace(cost=cost))
    counted = None
    if count:
        found = [count(call) for call in calls]
        counted = {
            name: Cost(sum(counts[name].macs for counts in found), cost.params)
            for name, cost in found[0].items()
        }
    return Side(sum_costs(step.cost for step in steps), tuple(steps), counted)


def _total_row(
    rows: list[Row],
    model: nn.Module,
    reasons: Mapping[str, str],
    found: Trace,
    count: _CountCalls | None,
) -> tuple[Row, list[str]]:
    """The total, which is the model, and what differs in it."""
    whole = total(rows)
    params = _size(model.parameters())
    faults = []
    if whole.as_is.cost.params != params:
        faults.append(
            f"the model holds {params:,} parameters, but its rows have {whole.as_is.cost.params:,}"
        )
    if found.torch_macs is not None and not found.unknown:
        not_by_torch = sum(operator.macs for operator in found.operators if not operator.by_torch)
        swapped = [ran for path, ran in found.blocks.items() if not reasons[path]]
        more = sum(ran.torch_macs - ran.instead_of for ran in swapped)
        for side, counted, what in (
            (whole.as_is, found.torch_macs, "the model"),
            (whole.rewritten, found.torch_macs + more, "the rewritten model"),
        ):
            known = side.cost.macs - not_by_torch
            if counted != known:
                faults.append(
                    f"torch's FlopCounterMode gives {counted:,} MACs for {what}, but the "
                    f"formulas give {known:,}"
                )
    crosscheck: Crosscheck = "exact"
    if faults or any(row.crosscheck == "mismatch" for row in rows):
        crosscheck = "mismatch"
    elif count is None or found.torch_macs is None or found.unknown or _unchecked(rows):
        crosscheck = "skipped"
    if count:
        added = whole.rewritten.cost.params - whole.as_is.cost.params
        whole = whole._replace(
            as_is=_with_counted(whole.as_is, [row.as_is for row in rows], params),
            rewritten=_with_counted(
                whole.rewritten, [row.rewritten for row in rows], params + added
            ),
        )
    whole = whole._replace(
        crosscheck=crosscheck, unknown=tuple(found.unknown), torch_macs=found.torch_macs
    )
    return whole, faults


def _with_counted(whole: Side, sides: Iterable[Side], params: int) -> Side:
    """With the MACs that fvcore counts of all sides, and the parameters that torch holds."""
    macs = sum(side.counted[""].macs for side in sides if side.counted)
    return whole._replace(counted={"": Cost(macs, params)})


def _unchecked(rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if row.as_is.cost.macs and row.crosscheck == "skipped"]


def _notes(
    rows: list[Row], block: Block, found: Trace, model: nn.Module, label: str, *, verified: bool
) -> Iterator[str]:
    yield from _kept_notes(rows, block, found, label)
    idle = [row for row in rows if row.kept == "did not run"]
    if idle:
        names = _first([row.name or "" for row in idle])
        params = sum(row.as_is.cost.params for row in idle)
        plain = {kind.__name__ for kind in CONVOLUTIONS.values()}
        noun = "convolution" if {row.kind for row in idle} <= plain else "module"
        yield f"{_with_noun(len(idle), noun)} did not run ({names}): {_with_noun(params, 'param')}"
    if found.real:
        yield f"this ran on real tensors, because the model needs values ({found.reason})"
    for name, calls in found.unknown.items():
        yield f"no formula for {name} ({_with_noun(calls, 'call')})"
    if verified and not found.unknown and (unchecked := _unchecked(rows)):
        names = _first([f"{row.name} ({row.kind})" for row in unchecked])
        yield f"not cross-checked, because neither fvcore nor torch counts it: {names}"
    modules = [module for path, module in model.named_modules() if path in found.ran]
    without_macs = {
        "norms": any(isinstance(module, _NORMS) for module in modules),
        "adaptive pools": any("AdaptiveAvgPool" in type(module).__name__ for module in modules),
    }
    if what := " and ".join(name for name, there in without_macs.items() if there):
        yield f"fvcore's own total also counts {what}, which have no MACs"
    missed = {"attention": ("attention",), "recurrent layers": ("lstm", "gru", "rnn")}
    kinds = {row.kind for row in rows}
    if what := " and ".join(name for name, held in missed.items() if not kinds.isdisjoint(held)):
        yield f"fvcore's own total lacks {what}, of which it knows no count"


def _kept_notes(rows: list[Row], block: Block, found: Trace, label: str) -> Iterator[str]:
    """Which convolutions are not rewritten and why; of what is out of reach, what it would cost."""
    macs = sum(row.as_is.cost.macs for row in rows) or 1
    kept: dict[str, list[tuple[Row, list[Conv]]]] = {}
    for row, operators in zip(rows, _by_row(found).values(), strict=False):  # rows with MACs first
        if row.kept and row.kind in ("conv", "transposed"):
            convs = [operator.conv for operator in operators if operator.conv]
            kept.setdefault(row.kept, []).append((row, convs))
    for reason, held in sorted(kept.items(), key=lambda item: -len(item[1])):
        before = sum(row.as_is.cost.macs for row, _ in held)
        share = "" if found.unknown else f", {float(100 * before / macs):.4g}% of the {label},"
        sentence = (
            f"{_with_noun(len(held), 'convolution')}{share} "
            f"{'was' if len(held) == 1 else 'were'} not rewritten: {reason}"
        )
        if reason in _OUT_OF_REACH and before:
            after = sum(_by_block(conv, block) for _, convs in held for conv in convs)
            if after < before:
                share = f"{float(100 * after / before):.4g}%"
                sentence += f"; as {block} they would cost {share} of that, by formula"
        yield sentence.replace("they", "it") if len(held) == 1 else sentence


def _by_block(conv: Conv, block: Block) -> int:
    """MACs of a convolution as a block, where that is cheaper, else as it is."""
    if isinstance(conv, TransposedConv) or why_kept(conv, block):
        return conv.cost.macs
    return sum_costs(step.cost for step in block.steps(conv)).macs


def _first(names: list[str]) -> str:
    """The first three of them, each once."""
    return ", ".join(dict.fromkeys(names[:3])) + (", ..." if len(names) > 3 else "")


def _with_noun(number: int, noun: str) -> str:
    return f"{number:,} {plural(noun, number)}"


def _size(parameters: Iterable[torch.Tensor]) -> int:
    return sum(parameter.numel() for parameter in parameters)
