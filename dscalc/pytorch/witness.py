"""A witness of a run that depends neither on dispatch modes nor on modules: torch's own profiler.

dscalc and FlopCounterMode see what passes through the dispatcher of the calling thread. Neither
sees a product that runs on another thread, or while the dispatch is switched off, so that both
agree on too little. The profiler sees the kernels of all threads. A product that was dispatched to
a mode shows an event of its name within another of the same name, one for each mode that it
passes; an unseen one shows a single event, or within it products that are unseen too.
"""

import os
import threading
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, Literal

from torch._C._profiler import _ExperimentalConfig
from torch.autograd import profiler

from dscalc.errors import DscalcError
from dscalc.show import first_few, plural

Place = Literal["with torch's dispatch switched off", "on another thread", "on an older thread"]


class Witness:
    """Sees the products of a run on all threads; in torch 2.4 on the calling thread alone.

    Args:
        products: torch's names of the operators that are products, such as ``aten::mm``.
    """

    def __init__(self, products: Collection[str]) -> None:
        self._products = products
        self._found: Any = None
        self._threads = 0  # that the run started
        self._older = {thread.native_id for thread in threading.enumerate()}

    @property
    def is_blind(self) -> bool:
        """Whether the run was profiled by somebody else, or on threads that were not seen."""
        return self._found is None or bool(self._threads and not _ALL_THREADS)

    @contextmanager
    def on(self) -> Iterator[None]:
        """Witness what runs inside."""
        with self._counting_threads():
            if profiler._is_profiler_enabled:
                yield
                return
            config = _ExperimentalConfig(**_ALL_THREADS)
            session = profiler.profile(use_cpu=True, use_kineto=True, experimental_config=config)
            with _silent():
                session.__enter__()  # type: ignore[no-untyped-call]
            try:
                yield
            finally:
                if profiler._is_profiler_enabled:  # else a profiler within has ended this one
                    session.__exit__(None, None, None)
                    self._found = session.kineto_results

    @contextmanager
    def _counting_threads(self) -> Iterator[None]:
        start = threading.Thread.start

        def counted(thread: threading.Thread) -> None:
            self._threads += 1
            start(thread)

        threading.Thread.start = counted  # type: ignore[method-assign, assignment]
        try:
            yield
        finally:
            threading.Thread.start = start  # type: ignore[method-assign]

    def unseen(self, whole: Collection[str]) -> dict[Place, Counter[str]]:
        """How often each product ran that no mode saw, by where it did.

        What runs within operators that are taken ``whole``, by their names, needs no witness. An
        older thread ran before the run began, and need not belong to it.
        """
        if self._found is None:
            return {}
        spans = defaultdict[int, list[tuple[int, int, str]]](list)
        for event in self._found.events():
            if (name := event.name()) in self._products or name in whole:
                span = event.start_ns(), -event.duration_ns(), name
                spans[event.device_resource_id()].append(span)
        unseen = defaultdict[Place, Counter[str]](Counter)
        for thread, events in spans.items():
            if alone := Counter(_alone(sorted(events), whole)):
                unseen[self._place(thread)] += alone
        return dict(unseen)

    def _place(self, thread: int) -> Place:
        if thread == threading.get_native_id():
            return "with torch's dispatch switched off"
        return "on an older thread" if thread in self._older else "on another thread"


def unwitnessed(witness: Witness, whole: Collection[str]) -> Iterator[str]:
    """Why products may be missing, but for those inside the operators that are taken whole.

    Raises:
        DscalcError: some are.
    """
    for place, products in witness.unseen(whole).items():
        number = products.total()
        ran = f"{number:,} {plural('product', number)} ({first_few(sorted(products))}) ran {place}"
        if place == "on an older thread":
            yield f"{ran} than this run's: if the model started it, the total lacks what it ran"
            continue
        fix = "have forward run all products on its own thread"
        if place != "on another thread":
            fix = "have forward run all products with it on, and not from a __torch_dispatch__"
        raise DscalcError(f"{ran}, which dscalc cannot see; {fix}")
    if witness.is_blind:
        yield (
            "products on threads that the run started would not be seen by this torch, or another "
            "profiler was on: nothing proves that none is missing"
        )


def _alone(events: list[tuple[int, int, str]], whole: Collection[str]) -> Iterator[str]:
    """The outermost products of a thread with no event within another of the same name.

    Under ``vmap`` what Python calls, such as ``mm``, is dispatched as another product within it.

    Of each event: when it starts, its duration, negative, so that the longer comes first, and name.
    """
    around: list[tuple[int, str]] = []  # the end and the name of each event that is not over
    name, dispatched = "", True
    for start, duration, inner in events:
        while around and around[-1][0] <= start:
            around.pop()
        if not around:
            if not dispatched:
                yield name
            name, dispatched = inner, inner in whole
        elif any(inner == outer for _, outer in around):
            dispatched = True
        around.append((start - duration, inner))
    if not dispatched:
        yield name


@contextmanager
def _silent() -> Iterator[None]:
    """Begin the profiler without what its C++ half prints; it reads the level at the first time."""
    level = os.environ.get("KINETO_LOG_LEVEL")
    os.environ["KINETO_LOG_LEVEL"] = level or "99"
    try:
        yield
    finally:
        if level is None:
            del os.environ["KINETO_LOG_LEVEL"]


_has_all_threads = "profile_all_threads" in (_ExperimentalConfig.__init__.__doc__ or "")
_ALL_THREADS: dict[str, Any] = {"profile_all_threads": True} if _has_all_threads else {}
