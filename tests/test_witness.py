"""No total is proved from which work is missing that no dispatch mode sees."""

import asyncio
import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from layers import Calling
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F  # noqa: N812
from torch.nn.utils.parametrizations import weight_norm

from dscalc.errors import DscalcError
from dscalc.pytorch import audit
from dscalc.pytorch.witness import _ALL_THREADS

WATCHES_THREADS = bool(_ALL_THREADS)
X = torch.zeros(4, 8)
MACS = 4 * 8 * 8  # of X through a linear layer of 8 -> 8

# How a product runs: the first way is seen, the others by no dispatch mode of the calling thread.


def in_forward(product):
    return product()


def on_a_thread(product):
    found = []
    thread = threading.Thread(target=lambda: found.append(product()))
    thread.start()
    thread.join()
    return found[0]


def in_a_pool(product):
    with ThreadPoolExecutor(2) as pool:
        return pool.submit(product).result()


def by_asyncio(product):
    return asyncio.run(asyncio.to_thread(product))


def undispatched(product):
    with torch._C._DisableTorchDispatch():
        return product()


HIDDEN = [on_a_thread, in_a_pool, by_asyncio, undispatched]


class Pair(nn.Module):
    """Two matrices of one module."""

    def __init__(self):
        super().__init__()
        self.a, self.b = (nn.Parameter(torch.randn(8, 8)) for _ in range(2))


# What runs, so that all of it or a part is run in such a way, and its MACs.
PRODUCTS = {
    "a layer": (lambda net, x, way: way(lambda: net.own(x)), MACS),
    "a tied layer": (lambda net, x, way: net.tied(way(lambda: net.tied(x))), 2 * MACS),
    "no weight": (lambda net, x, way: way(lambda: x @ x.T @ x), 2 * MACS // 2),
    "one of two matrices": (
        lambda net, x, way: F.linear(way(lambda: F.linear(x, net.pair.b)), net.pair.a), 2 * MACS,
    ),
}  # fmt: skip


def net_of(plan):
    def forward(net, x):
        for name, way in plan:
            x = PRODUCTS[name][0](net, x, way)
        return x

    return Calling(forward, own=nn.Linear(8, 8), tied=nn.Linear(8, 8), pair=Pair())


steps = st.tuples(st.sampled_from([*PRODUCTS]), st.sampled_from([in_forward, *HIDDEN]))


@pytest.mark.skipif(not WATCHES_THREADS, reason="this torch profiles one thread")
@given(st.lists(steps, min_size=1, max_size=4))
def test_products_that_no_mode_sees_are_never_left_out(plan):
    if any(way in HIDDEN for _, way in plan):
        with pytest.raises(DscalcError, match="which dscalc cannot see"):
            audit(net_of(plan), X)
    else:
        total = audit(net_of(plan), X).total
        assert total.crosscheck == "exact"
        assert total.as_is.cost.macs == sum(PRODUCTS[name][1] for name, _ in plan)


@pytest.mark.parametrize("way", HIDDEN)
def test_a_torch_that_watches_one_thread_proves_nothing_of_others(way, monkeypatch):
    monkeypatch.setattr("dscalc.pytorch.witness._ALL_THREADS", {})
    net = net_of([("a layer", in_forward), ("a layer", way)])
    if way is undispatched:
        with pytest.raises(DscalcError, match="dispatch switched off"):
            audit(net, X)
        return
    report = audit(net, X)
    assert (report.total.as_is.cost.macs, report.total.crosscheck) == (MACS, "not proved")
    assert report.doubts == [
        "products on threads that the run started would not be seen by this torch, or another "
        "profiler was on: nothing proves that none is missing"
    ]


@pytest.mark.skipif(not WATCHES_THREADS, reason="this torch profiles one thread")
def test_a_thread_that_was_there_before_need_not_be_the_models():
    """As where a notebook trains meanwhile."""
    goes_on, ran = threading.Event(), threading.Event()

    def train():
        goes_on.wait()
        X @ X.T
        ran.set()

    def forward(net, x):
        goes_on.set()
        ran.wait()
        return net.own(x)

    thread = threading.Thread(target=train)
    thread.start()
    report = audit(Calling(forward, own=nn.Linear(8, 8)), X)
    thread.join()
    assert (report.total.as_is.cost.macs, report.total.crosscheck) == (MACS, "not proved")
    assert report.doubts == [
        "1 product (aten::mm) ran on an older thread than this run's: if the model started it, "
        "the total lacks what it ran"
    ]


def test_a_profiler_of_the_users_own_leaves_no_witness():
    net = nn.Linear(8, 8)
    with torch.autograd.profiler.profile():
        assert audit(net, X).total.crosscheck == "not proved"
    assert audit(net, X).total.crosscheck == "exact"


def test_a_model_that_profiles_itself_leaves_no_witness():
    def forward(net, x):
        with torch.autograd.profiler.profile():
            return net.own(x)

    report = audit(Calling(forward, own=nn.Linear(8, 8)), X)
    assert report.total.crosscheck == "not proved"


# What may have run outside of torch: the total stands, without a tick.


class Extension(nn.Module):
    """As one whose kernel takes the weight by its address."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 8))

    def forward(self, x):
        return torch.empty_like(x)


class ByAddress(Extension):
    def forward(self, x):
        assert self.weight.data_ptr() != 0
        return torch.empty_like(x)


def by_numpy(net, x):
    return torch.from_numpy(net.own(x).numpy() @ np.ones((8, 8), np.float32))


def by_lists(net, x):
    return torch.tensor(net.own(x).tolist())


def by_dlpack(net, x):
    return torch.from_numpy(np.from_dlpack(net.own(x)))


OUTSIDE = {
    "a module of its own": (
        lambda net, x: net.other(net.own(x)), "no operator took the parameters of other when it "
        "ran: if other code did, such as an extension, its products are not counted",
    ),
    **{
        name: (forward, f"values leave torch ({name}): what is computed of them there is not "
               "counted")
        for name, forward in [("numpy", by_numpy), ("tolist", by_lists), ("__dlpack__", by_dlpack)]
    },
}  # fmt: skip


@pytest.mark.parametrize("name", OUTSIDE)
def test_what_may_be_missing_takes_the_tick_and_not_the_total(name):
    forward, said = OUTSIDE[name]
    report = audit(Calling(forward, own=nn.Linear(8, 8), other=Extension()), X)
    assert (report.total.as_is.cost.macs, report.total.crosscheck) == (MACS, "not proved")
    assert report.doubts == [said]


def test_no_address_of_a_tensor_without_values_is_read():
    report = audit(Calling(lambda net, x: net.other(net.own(x)), own=nn.Linear(8, 8),
                           other=ByAddress()), X)  # fmt: skip
    assert "data_ptr in other" in report.doubts[0]
    assert report.total.crosscheck == "not proved"


# False alarms.


class Lora(nn.Module):
    def __init__(self):
        super().__init__()
        self.base, self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 2, False), nn.Linear(2, 8, False)

    def forward(self, x):
        return self.base(x) + self.b(self.a(x))


class Masked(nn.Module):
    """A token and a head that training alone uses."""

    def __init__(self):
        super().__init__()
        self.own, self.mask_token = nn.Linear(8, 8), nn.Parameter(torch.zeros(8))

    def forward(self, x, masks=None):
        x = self.own(x)
        return x if masks is None else x * masks + self.mask_token


def called_functionally(net, x):
    weights = {name: value.clone() for name, value in net.own.named_parameters()}
    return functional_call(net.own, weights, (x,))


def by_sizes(net, x):
    """Whole numbers, and a mask, are sizes."""
    sizes = torch.tensor([3, 1]).numpy()
    mask = torch.ones(4, dtype=torch.bool).tolist()
    return net.own(x)[: int(sizes[0]) + len(mask)]


FINE = {
    "a functional call": (Calling(called_functionally, own=nn.Linear(8, 8)), MACS),
    "sizes": (Calling(by_sizes, own=nn.Linear(8, 8)), MACS),
    "LoRA": (Lora(), 4 * (64 + 32)),
    "weight norm": (weight_norm(nn.Linear(8, 8)), MACS),
    "a vmap of a product": (
        Calling(
            lambda net, x: torch.vmap(lambda row: net.own.weight @ row)(x), own=nn.Linear(8, 8)
        ),
        MACS,
    ),
    "a vmap over weights": (
        Calling(
            lambda net, x: torch.vmap(lambda w: x @ w)(net.stack),
            stack=nn.Parameter(torch.ones(3, 8, 8)),
        ),
        3 * MACS,
    ),
    "a weight without its graph": (
        Calling(lambda net, x: F.linear(x, net.own.weight.data), own=nn.Linear(8, 8)), MACS,
    ),
    "a fork": (
        Calling(lambda net, x: torch.jit.wait(torch.jit.fork(net.own, x)), own=nn.Linear(8, 8)),
        MACS,
    ),
    "a thread without products": (
        Calling(lambda net, x: on_a_thread(lambda: net.own(x) if x is None else x) + net.own(x),
                own=nn.Linear(8, 8)), MACS,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FINE)
def test_what_is_seen_keeps_its_tick(name):
    if "thread" in name and not WATCHES_THREADS:
        pytest.skip("this torch profiles one thread")
    net, macs = FINE[name]
    report = audit(net, X)
    assert (report.total.as_is.cost.macs, report.doubts) == (macs, [])


def test_a_parameter_of_training_alone_is_a_hint():
    report = audit(Masked(), X)
    assert report.total.as_is.cost.macs == MACS
    assert report.doubts == [
        "no operator took the parameters of the model when it ran: if other code did, such as an "
        "extension, its products are not counted"
    ]


# As it is used.

NET = """
import threading, torch
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)
    def forward(self, x):
        found = []
        thread = threading.Thread(target=lambda: found.append(self.b(x)))
        thread.start(); thread.join()
        return self.a(x) + found[0]
"""


@pytest.mark.skipif(not WATCHES_THREADS, reason="this torch profiles one thread")
@pytest.mark.parametrize("asked", ["", "--get macs", "--assert macs<=10K", "-f json"])
def test_every_question_about_such_a_model_is_refused(asked, here, run):
    (here / "threads.py").write_text(NET)
    result = run(f"model threads.py:Net --input 8 {asked}")
    assert (result.code, result.stdout) == (2, "")
    assert result.error == (
        "1 product (aten::addmm) ran on another thread, which dscalc cannot see; have forward "
        "run all products on its own thread"
    )


OUTSIDE_NET = """
import torch
class Net(torch.nn.Linear):
    def __init__(self):
        super().__init__(8, 8)
    def forward(self, x):
        return torch.from_numpy(super().forward(x).numpy())
"""


@pytest.mark.parametrize("quiet", ["", " -q"])
def test_a_value_alone_says_on_stderr_why_it_may_be_too_low(quiet, here, run):
    (here / "outside.py").write_text(OUTSIDE_NET)
    command = f"model outside.py:Net --input 8 --get macs{quiet}"
    said = "note: values leave torch (numpy): what is computed of them there is not counted\n"
    assert run(command) == (0, "64\n", "" if quiet else said)


@pytest.mark.parametrize(
    ("asked", "of", "printed"),
    [
        (
            "model outside.py:Net outside.py:Net --input 8 --get macs",
            "outside.py:Net: ",
            "64\n64\n",
        ),
        ("check budgets.toml -f csv", "Net fits: ", None),
        ("check budgets.toml -f github", "Net fits: ", None),
    ],
)
def test_several_values_and_budgets_say_it_too(asked, of, printed, here, run):
    (here / "outside.py").write_text(OUTSIDE_NET)
    (here / "budgets.toml").write_text(
        '[[check]]\nname = "Net fits"\nrun = "model outside.py:Net --input 8"\n'
        'assert = "macs <= 64"\n'
    )
    result = run(asked)
    said = f"note: {of}values leave torch (numpy): what is computed of them there is not counted"
    assert (result.code, set(result.stderr.splitlines())) == (0, {said})
    assert printed in (None, result.stdout)
    assert run(f"{asked} -q").stderr == ""


@pytest.mark.parametrize("asked", ["--peers", "--explain 64", "--explain 69", "--baseline it.json"])
def test_answers_about_its_macs_say_it_too(asked, here, run):
    (here / "outside.py").write_text(OUTSIDE_NET)
    run("model outside.py:Net --input 8 -o it.json")
    why = "values leave torch (numpy): what is computed of them there is not counted"
    assert f"\nnote: {why}\n" in run(f"model outside.py:Net --input 8 {asked}").stdout
    assert why in json.loads(run(f"model outside.py:Net --input 8 {asked} -f json").stdout)["notes"]


def test_the_witness_prints_nothing(tmp_path):
    (tmp_path / "one.py").write_text("import torch\nnet = torch.nn.Linear(8, 8)\n")
    command = [sys.executable, "-m", "dscalc", "model", "one.py:net", "--input", "8"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "KINETO" not in done.stdout
