"""A model -> rows: every operator, as it is and rewritten, summed by module; and the proof."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from threading import RLock
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from dscalc.core.blocks import Block, Step
from dscalc.core.conv import Conv
from dscalc.core.cost import Cost, sum_costs
from dscalc.core.fields import Unit, model_fields, training_fields
from dscalc.core.kinds import common_kind
from dscalc.core.patterns import Patterns
from dscalc.core.peaks import Footprint
from dscalc.core.row import Counted, Crosscheck, Row, Side, Sizes, total, with_shares
from dscalc.errors import DscalcError
from dscalc.pytorch.copies import trainable
from dscalc.pytorch.crosscheck import count
from dscalc.pytorch.inputs import inputs_in_words, shapes_of
from dscalc.pytorch.rewrite import reasons_to_keep, replacement, replacements
from dscalc.pytorch.trace import Observe, trace_either
from dscalc.pytorch.traced import Operator, Trace
from dscalc.pytorch.walk import Held
from dscalc.report.report import Report
from dscalc.show import first_few, plural, printable

if TYPE_CHECKING:
    from dscalc.pytorch.trained import Trained

_CountCalls = Callable[[tuple[Step, ...]], Counted]
_RUNNING = RLock()


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Wait for other threads, as a run is watched by hooks of the process; leave inference mode."""
    with _RUNNING, torch.inference_mode(mode=False):
        yield


@_one_at_a_time()
def audit(
    model: nn.Module,
    *inputs: Any,
    block: Block | str | None = None,
    only: Patterns | None = None,
    exclude: Patterns | None = None,
    verify: bool = True,
    backward: bool = False,
    rebuild: Callable[[], nn.Module] | None = None,
    named: Mapping[str, Any] | None = None,
    input_size: Sequence[int] | Sequence[Sequence[int]] | None = None,
    observe: Observe | None = None,
    nonzero: bool = False,
    unit: Unit = "macs",
    bits: int | None = None,
    **keywords: Any,
) -> Report:
    """Count every operator of a model, as it is; with ``block``, also what that would save.

    A copy is traced on the meta device, in evaluation mode and without gradients: nothing is
    computed, and the model, its device and all random states are left as they are. A model that
    needs values (control flow on results) runs on real tensors instead. Rows add up to the total,
    and the total is the model.

    Args:
        model: any module, on any device.
        *inputs: what its ``forward`` takes: tensors of any device, or shapes such as
            ``(1, 3, 224, 224)``.
        block: what convolutions are rewritten as, such as ``"separable"``; by default nothing.
        only: globs on module paths: only those are rewritten.
        exclude: globs on module paths that are not rewritten.
        verify: whether fvcore counts each distinct convolution and linear layer.
        backward: whether to run a step of training too, and count its backward pass.
        rebuild: makes the model anew with values, if it was built on the meta device.
        named: what its ``forward`` takes by keyword, if `audit` has an argument of that name.
        input_size: the shape of its input, or a list of shapes, as torchinfo takes them.
        observe: makes an observer of the run, whose result the report carries,
            such as ``CallObserver`` of ``dscalc.peers.observer``.
        nonzero: whether zeros among the weights are counted, for ``row.nonzero``; the model then
            runs on real tensors.
        unit: of the counts that people read: ``"macs"``, or ``"flops"``, 2 a MAC.
        bits: of a floating element in what memory is told: 8, 16 or 32; as it is by default.
        **keywords: what its ``forward`` takes by keyword.

    Raises:
        DscalcError: it is no module, or cannot be copied or run on these inputs; a glob matches
            nothing or comes without a block; with ``backward``, nothing requires a gradient, or
            the model cannot be trained on these inputs alone.
        CrosscheckError: fvcore cannot count one of its layers.
    """
    if not isinstance(model, nn.Module):
        got = getattr(model, "__name__", type(model).__name__)
        raise DscalcError(f"audit takes an nn.Module, made by a call such as Net(), got {got}")
    if isinstance(block, str):
        block = Block.parse(block, standard="what the model already has")
    if block is None and (only or exclude):
        raise DscalcError("only and exclude choose what is rewritten; give a block too")
    if input_size is not None:
        if inputs:
            raise DscalcError("inputs are given both as they are and by input_size; drop one")
        inputs = (input_size,) if _is_shape(input_size) else tuple(input_size)
    if bits not in (None, 8, 16, 32):
        raise DscalcError(f"bits of a floating element are 8, 16 or 32, got {bits!r}")
    args = tuple(_tensor(value) for value in inputs)
    kwargs = {name: _tensor(value) for name, value in {**(named or {}), **keywords}.items()}
    reasons: dict[str, str] = {}

    def blocks(copied: nn.Module) -> dict[str, nn.Module]:
        if block is None:
            return {}
        reasons.update(reasons_to_keep(copied, block, only, exclude, at_any_size=True))
        with torch.random.fork_rng(devices=[]):  # real blocks have weights, which are drawn
            return replacements(copied, reasons, lambda module: replacement(module, block))

    rebuild = cache(rebuild) if rebuild else None  # a second model may draw other weights
    words = inputs_in_words(args, kwargs)
    asked: dict[str, Any] = {"observe": observe, "bits": bits, "nonzero": nonzero}
    found, _ = trace_either(model, args, kwargs, rebuild, blocks=blocks, **asked)
    reasons |= dict.fromkeys(found.functional, "functional")
    scripted = {
        p for p, held in found.held.items() if isinstance(held.module, torch.jit.ScriptModule)
    }
    convolved = {operator.path for operator in found.operators if operator.kind == "conv"}
    reasons |= dict.fromkeys(scripted & convolved, "scripted")
    reasons |= dict.fromkeys(_without_saving(found, reasons), "no saving")
    counting = cache(count) if verify else None
    trained = None
    if backward:
        from dscalc.pytorch.trained import Trained  # which few runs need
        from dscalc.pytorch.training import train

        run = train(model, args, kwargs, rebuild, bits=bits)
        trained = Trained(found, run, verify=verify)
    books = _Books(found.held, nonzero=nonzero)
    rows = list(_make_rows(block, reasons, found, counting, trained, books))
    whole, faults = _total_row(rows, reasons, found, counting)
    notes = list(_notes(rows, found, args, kwargs))
    if trained:
        whole = whole._replace(training=trained.whole)
        faults, notes = faults + trained.faults, notes + trained.notes
    if not found.unknown:
        rows = with_shares(rows)
    named_fields = training_fields if backward else model_fields
    return Report(
        "model", block, named_fields(block, unit, nonzero=nonzero), rows, whole,
        title=type(model).__name__, inputs=shapes_of(args, kwargs),
        at=f" at {words}" if words else "", notes=notes, doubts=found.doubts, faults=faults,
        classes={path: type(module).__name__ for path, (module, _) in found.held.items()},
        unit=unit, extra=found.observed,
    )  # fmt: skip


def _tensor(value: Any) -> Any:
    """A tensor where a shape is given.

    Raises:
        DscalcError: it is a nested tensor.
    """
    if isinstance(value, torch.Tensor) and value.is_nested:
        raise DscalcError("nested tensors as inputs are not supported; give one padded tensor")
    return torch.empty(*value, device="meta") if _is_shape(value) else value


def _is_shape(value: Any) -> bool:
    return isinstance(value, tuple | list) and bool(value) and all(type(n) is int for n in value)


class _Books:
    """Who owns each parameter, and which are not yet in a row."""

    def __init__(self, modules: Mapping[str, Held], *, nonzero: bool) -> None:
        self._nonzero = _nonzero_of(modules) if nonzero else None
        self.owned: dict[str, list[nn.Parameter]] = {}
        self.plain: dict[str, dict[str, nn.Parameter]] = {}  # a weight and a bias, and no more
        seen: set[int] = set()
        for path, (_, held) in modules.items():
            own = [parameter for parameter in held.values() if id(parameter) not in seen]
            seen.update(map(id, own))
            if len(own) == len(held) and {"weight"} <= held.keys() <= {"weight", "bias"}:
                self.plain[path] = held
            if own:
                self.owned[path] = own

    def take(self, path: str) -> list[nn.Parameter]:
        """Parameters of a module, which the first row that asks for them gets."""
        return self.owned.pop(path, [])

    def nonzero(self, held: list[nn.Parameter], operators: Iterable[Operator] = ()) -> Cost | None:
        """What parameters and products cost without zeros, if that is asked."""
        if self._nonzero is None:
            return None
        macs = sum(operator.nonzero or 0 for operator in operators)
        return Cost(macs, sum(self._nonzero[id(parameter)] for parameter in held))

    def by_formula(self, first: Operator, params: int) -> int:
        """What the layer should hold, by its sizes, if its weight and bias are all of these."""
        held, conv = self.plain.get(first.path), first.conv
        if not params or not held or not conv or first.weight is not held["weight"]:
            return params
        return conv.cost.params if conv.bias == ("bias" in held) else params


def _make_rows(
    block: Block | None,
    reasons: Mapping[str, str],
    found: Trace,
    count: _CountCalls | None,
    trained: "Trained | None",
    books: _Books,
) -> Iterator[Row]:
    """A row for each module and kind of operator, then for each other module that holds tensors."""
    torch_agrees = not found.unknown and found.torch_macs == found.known_to_torch
    by_row = _by_row(found)
    weights = dict(found.memory.weights)

    def footprint(path: str) -> Footprint:
        held = weights.pop(path, 0)  # the first row of a module has all that it holds
        while path and path in found.ran and path not in found.memory.peaks:
            path = path.rpartition(".")[0]  # another module runs its weights
        return Footprint(found.memory, held, (path,))

    for (path, kind), operators in by_row.items():
        held = books.take(path)
        unknown: Mapping[str, int] = found.unknown_in.get((path, kind), {})
        params = _size(held)
        convs = [operator.conv for operator in operators if operator.conv]
        countable = len(convs) == len(operators) and not (unknown or (path, kind) in found.doubtful)
        formula = Cost(0, books.by_formula(operators[0], params))
        before = Side(
            sum_costs(Cost(o.macs, 0, o.activations) for o in operators) + formula,
            counted=_count_rows_calls(convs, params, count) if countable else None,
        )
        kept = "MACs not known" if unknown else _why_kept(path, kind, reasons)
        after, agrees = before, not before.differences
        if block and not kept:
            after = _as_block(convs, block, count)
            ran = sum(operator.macs for operator in found.blocks[path].operators)
            agrees &= ran == after.cost.macs and not after.differences
        checked = before.counted or (torch_agrees and all(o.by_torch for o in operators))
        checked = checked and (path, kind) not in found.doubtful
        crosscheck: Crosscheck = "not proved" if count else "skipped"
        if count and not unknown and (checked or not agrees):
            crosscheck = "exact" if agrees else "mismatch"
        yield Row(
            _row_name(path), common_kind(convs) if kind == "conv" else kind, _shape(convs), before,
            after if block else None, kept if block else "",
            calls=len({operator.call for operator in operators}), crosscheck=crosscheck,
            unknown=unknown, trainable_params=trainable(held), memory=footprint(path),
            nonzero=books.nonzero(held, operators),
            training=trained.of(path, kind) if trained else None,
        )  # fmt: skip
    for (path, kind), names in found.unknown_in.items():
        if (path, kind) not in by_row:
            yield _without_macs(
                path, kind, books.take(path), block, kind, books, unknown=names,
                memory=footprint(path), crosscheck="not proved" if count else "skipped",
            )  # fmt: skip
    for path, held in books.owned.items():
        kind, ran = type(found.held[path].module).__name__, path in found.ran
        kept = kind if ran else "did not run"
        yield _without_macs(
            path, kind, held, block, kept, books, calls=int(ran), memory=footprint(path),
            training=trained.of(path, kind) if trained else None,
        )  # fmt: skip
    for path in [path for path in weights if path in found.held]:  # these hold buffers alone
        kind = type(found.held[path].module).__name__
        yield _without_macs(
            path, kind, [], block, kind, books, memory=footprint(path),
            training=trained.of(path, kind) if trained else None,
        )  # fmt: skip


def _without_saving(found: Trace, reasons: Mapping[str, str]) -> list[str]:
    """Paths of convolutions whose blocks took as many MACs or more, on the sizes that ran."""
    own = Counter[str]()
    for operator in found.operators:
        own[operator.path] += operator.macs
    return [
        path
        for path, beside in found.blocks.items()
        if not reasons[path]
        and beside.operators
        and sum(operator.macs for operator in beside.operators) >= own[path]
    ]


def _row_name(path: str) -> str:
    return printable(path) or "the model"


def _why_kept(path: str, kind: str, reasons: Mapping[str, str]) -> str:
    """Why a product is not rewritten; "" if it is."""
    return reasons.get(path, "functional" if kind == "conv" else kind)


def _without_macs(
    path: str,
    kind: str,
    held: list[nn.Parameter],
    block: Block | None,
    kept: str,
    books: _Books,
    **seen: Any,
) -> Row:
    side = Side(Cost(0, _size(held)))
    return Row(
        _row_name(path), kind, Sizes(), side, side if block else None, kept if block else "",
        trainable_params=trainable(held), nonzero=books.nonzero(held), **seen,
    )  # fmt: skip


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
    reasons: Mapping[str, str],
    found: Trace,
    count: _CountCalls | None,
) -> tuple[Row, list[str]]:
    """The total, which is the model, and what differs in it."""
    whole = total(rows)
    params = _size({id(p): p for _, own in found.held.values() for p in own.values()}.values())
    faults = []
    if whole.as_is.cost.params != params:
        faults.append(
            f"the model holds {params:,} parameters, but its rows have {whole.as_is.cost.params:,}"
        )
    if found.torch_macs is not None and not (found.unknown or found.doubtful):
        not_by_torch = sum(operator.macs for operator in found.operators if not operator.by_torch)
        swapped = [ran for path, ran in found.blocks.items() if not reasons[path]]
        more = sum(ran.torch_macs - ran.instead_of for ran in swapped)
        for side, counted, what in (
            (whole.as_is, found.torch_macs, "the model"),
            (whole.rewritten, found.torch_macs + more, "the rewritten model"),
        ):
            if side and counted != (known := side.cost.macs - not_by_torch):
                faults.append(
                    f"torch's FlopCounterMode gives {counted:,} MACs for {what}, but the "
                    f"formulas give {known:,}"
                )
    crosscheck: Crosscheck = "exact"
    if faults or any(row.crosscheck == "mismatch" for row in rows):
        crosscheck = "mismatch"
    elif count is None:
        crosscheck = "skipped"
    elif found.torch_macs is None or found.unknown or found.doubts or _not_proved(rows):
        crosscheck = "not proved"
    if count:
        before, after = whole.as_is, whole.rewritten
        whole = whole._replace(as_is=_with_counted(before, [row.as_is for row in rows], params))
        if after:
            held = params + after.cost.params - before.cost.params
            whole = whole._replace(
                rewritten=_with_counted(after, [row.replacement for row in rows], held)
            )
    whole = whole._replace(
        crosscheck=crosscheck, torch_macs=found.torch_macs, memory=Footprint.of_model(found.memory)
    )
    return whole, faults


def _with_counted(whole: Side, sides: Iterable[Side], params: int) -> Side:
    """With the MACs that fvcore counts of all sides, and the parameters that torch holds."""
    macs = sum(side.counted[""].macs for side in sides if side.counted)
    return whole._replace(counted={"": Cost(macs, params)})


def _not_proved(rows: Iterable[Row]) -> bool:
    return any(row.as_is.cost.macs and row.crosscheck == "not proved" for row in rows)


def _notes(
    rows: list[Row], found: Trace, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Iterator[str]:
    """What did not run, what the model changed, that it needs values, and what nothing proves."""
    idle = [row for row in rows if row.calls == 0]
    if idle:
        names = first_few([row.name or "" for row in idle])
        params = sum(row.as_is.cost.params for row in idle)
        modules, held = plural("module", len(idle)), plural("param", params)
        yield f"{len(idle):,} {modules} did not run: {names} ({params:,} {held})"
    if found.changes:
        more = f" and {len(found.changes) - 1:,} more" if len(found.changes) > 1 else ""
        yield f"the model changes itself ({found.changes[0]}{more}): its params are those before"
    yield from found.doubts
    own = {operator.leaf: operator.formula for operator in found.operators if operator.formula}
    for name, formula in own.items():
        macs = sum(operator.macs for operator in found.operators if operator.leaf == name)
        yield f"{macs:,} MACs of {name} are by your formula, {formula}, which nothing proves"
    unknown = [name for name in found.unknown if not name.startswith("aten::") and "::" in name]
    if unknown:
        names = first_few(unknown)
        yield f"a formula of your own counts: register_flop_formula of torch, for {names}"
    if found.real:
        zeros = any(
            value.is_meta and not value.is_floating_point()
            for value in tree_leaves((args, dict(kwargs)))
            if isinstance(value, torch.Tensor)
        )
        yield (
            f"the model needs values ({found.reason}): it ran on real tensors"
            f"{', whole numbers as 0' if zeros else ''}"
        )


def _nonzero_of(modules: Mapping[str, Held]) -> dict[int, int]:
    """How many elements of each parameter are not zero, by its id.

    Where torch.nn.utils.prune keeps a mask beside it, those that the mask leaves.
    """
    counts = {}
    for module, held in modules.values():
        for name, parameter in held.items():
            mask = module._buffers.get(f"{name[:-5]}_mask") if name.endswith("_orig") else None
            left = parameter if mask is None else parameter * mask
            counts[id(parameter)] = int(left.count_nonzero())
    return counts


def _size(parameters: Iterable[torch.Tensor]) -> int:
    return sum(parameter.numel() for parameter in parameters)
