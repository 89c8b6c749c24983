"""What a step of training costs each row of a model, and whether it is proved."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TypeVar

from dscalc.core.peaks import AUTOCAST
from dscalc.core.row import Crosscheck, Training
from dscalc.pytorch.operators import RECURRENT
from dscalc.pytorch.traced import Operator, Trace
from dscalc.pytorch.training import Product, TrainingRun, macs_of
from dscalc.show import first_few, printable

_Each = TypeVar("_Each", Operator, Product)


class Trained:
    """What a step of training costs each row of a model, and the whole.

    Args:
        found: the forward pass in evaluation mode, of which the rows are.
        run: the step.
        verify: whether to compare the backward pass with its two counters.

    Attributes:
        whole: what it costs the model.
        notes: what the reader must know of it, a sentence each.
        faults: what differs from torch's counter, a sentence each.
    """

    def __init__(self, found: Trace, run: TrainingRun, *, verify: bool) -> None:
        self._evaluated = _by_module(found.operators)
        ran = _by_module(run.products)
        self._null = {
            path
            for path in {**self._evaluated, **ran}
            if macs_of(self._evaluated.get(path, ())) != macs_of(ran.get(path, ()))
        }
        self._backward: Counter[tuple[str, str]] = Counter()
        for products in (ran, _by_module(run.again)):
            for path, here in products.items():
                self._assign(path, here)
        self._saved = None if run.casts else _saved_by_row(found, run)
        self.faults = list(_faults(run)) if verify else []
        doubts = list(_doubts(found, run)) if verify and not self.faults else []
        proof: Crosscheck = "mismatch" if self.faults else "exact"
        if doubts or not verify:
            proof = "not proved" if verify else "skipped"
        self.whole = Training(run.forward_macs, run.backward_macs, run.saved_bytes, proof)
        self.notes = [*_notes_of_step(found, run, sorted(self._null)), *doubts]
        self._null |= run.mixed

    def _assign(self, path: str, products: list[Product]) -> None:
        """Give backward MACs to rows, of which evaluation mode alone knows the kinds."""
        like = self._evaluated.get(path, [])
        kinds = [operator.kind for operator in like]
        if len({*kinds}) == 1:
            kinds = kinds[:1] * len(products)
        elif [operator.macs for operator in like] != [product.macs for product in products]:
            self._null.add(path)
            return
        for kind, product in zip(kinds, products, strict=True):
            self._backward[path, kind] += product.backward

    def of(self, path: str, kind: str) -> Training:
        """Of the row of a kind of operator in a module, or of a module without operators.

        What a module saves belongs to the first of its rows.
        """
        like = self._evaluated.get(path, [])
        saved = None
        if self._saved is not None:
            saved = self._saved[path] if not like or like[0].kind == kind else 0
        if path in self._null:
            return Training(saved_bytes=saved)
        macs = macs_of(operator for operator in like if operator.kind == kind)
        return Training(macs, self._backward[path, kind], saved)


def _by_module(each: Iterable[_Each]) -> dict[str, list[_Each]]:
    found: dict[str, list[_Each]] = {}
    for one in each:
        found.setdefault(one.path, []).append(one)
    return found


def _saved_by_row(found: Trace, run: TrainingRun) -> Counter[str]:
    """Bytes by the path of the first module that saves them and has a row."""
    rows = {path for path, (_, own) in found.held.items() if own}
    rows |= {operator.path for operator in found.operators}
    saved: Counter[str] = Counter()
    for _, size, paths in run.saved:
        path = next((path for path in paths if path in rows), None)
        if path is not None:
            saved[path] += size
    return saved


def _faults(run: TrainingRun) -> Iterator[str]:
    """How torch's counter differs."""
    if run.torch_macs not in (None, run.known_to_torch) and not run.doubts:
        yield (
            f"torch's FlopCounterMode gives {run.torch_macs:,} MACs for a step of training, but "
            f"the formulas give {run.known_to_torch:,}"
        )


def _doubts(found: Trace, run: TrainingRun) -> Iterator[str]:
    """Why nothing proves the backward pass."""
    if run.forward_macs < macs_of(found.operators):
        yield "the step is not proved: its forward pass has fewer MACs than that in evaluation mode"
    if run.torch_macs is None:
        yield "the backward pass is not proved: torch's FlopCounterMode cannot count it"
    yield from run.doubts
    unseen = {p.operator for p in (*run.products, *run.again) if p.macs and not p.operator.by_torch}
    if unseen:
        names = sorted({operator.leaf for operator in unseen})
        paths = sorted({printable(operator.path) or "the model" for operator in unseen})
        yield (
            f"the step is not proved: torch's FlopCounterMode does not count {first_few(names)} "
            f"in {first_few(paths)}"
        )
    if run.elsewhere:
        yield (
            f"the backward pass is not proved: {run.elsewhere:,} MACs that autograd runs belong to "
            "no module alone"
        )
    again = _by_module(run.again)
    differ = []
    for path, products in {**again, **_by_module(run.products)}.items():
        # Under a checkpoint that is reentrant, gradients are off until all runs again.
        needed = _by_factors(products)
        if needed == 0:
            needed = _by_factors(again.get(path, []))
        ran = sum(product.backward for product in (*products, *again.get(path, ())))
        if needed != ran:
            differ.append((printable(path) or "the model", needed, ran))
    if differ:
        path, needed, ran = differ[0]
        more = f"; {len(differ) - 1:,} more" if len(differ) > 1 else ""
        why = "a result is detached, rounded or not returned"
        if needed is None or ran > needed:
            why = "it has a backward pass of its own"
        by_factors = "no number" if needed is None else f"{needed:,}"
        yield (
            f"the backward pass is not proved: autograd runs {ran:,} MACs in {path}, whose factors "
            f"that need a gradient give {by_factors} ({why}){more}"
        )


def _by_factors(products: Iterable[Product]) -> int | None:
    """Each factor that needs a gradient costs a product once more; None if that is not known."""
    each = [None if p.factors is None else p.factors * p.macs for p in products]
    return None if None in each else sum(filter(None, each))


def _notes_of_step(found: Trace, run: TrainingRun, differ: list[str]) -> Iterator[str]:
    """What the reader must know of a step of training."""
    now, before = run.forward_macs, macs_of(found.operators)
    if differ:
        where = first_few([printable(path) or "the model" for path in differ])
        unlike = f": {now:,} MACs forward, {before:,} in evaluation mode" if now != before else ""
        yield f"training mode runs otherwise in {where}{unlike}"
    if run.again:
        macs = macs_of(run.again)
        yield f"{macs:,} MACs run once more in the backward pass (checkpointing), and do not count"
    if run.casts:
        yield f"the bytes saved for the backward pass are not known: {AUTOCAST}"
    kinds = {operator.kind for operator in found.operators}
    if "attention" in kinds:
        yield "attention is trained as its plain products: a fused kernel saves fewer bytes"
    if not kinds.isdisjoint(RECURRENT):
        yield "recurrent layers are trained as plain products: a fused kernel saves other bytes"
    if run.reason and not found.real:
        yield f"training needs values ({run.reason}): it ran on real tensors"
