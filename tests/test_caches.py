"""Caches of functions hold no tensor of a run after it."""

import functools
from types import SimpleNamespace

import pytest
import torch
from layers import Calling
from torch import nn

from dscalc.pytorch import audit, caches


@pytest.fixture
def cached():
    """Functions with caches that are made here, since those of a file are frozen by conftest."""

    @functools.lru_cache
    def table(size):
        return torch.arange(size).float()

    @functools.cache
    def tables(size):
        return {"first": [torch.ones(size), torch.ones(size).view(1, -1)]}

    @functools.lru_cache
    def of_model(model, size):
        return torch.ones(size)

    @functools.lru_cache
    def word(number):
        return str(number)

    functions = table, tables, of_model, word
    return SimpleNamespace(**{each.__name__: each for each in functions})


def of_values(model, x, cached):
    y = model.layer(model.layer(x) * cached.table(8))
    return y if y.sum().item() < 1e9 else model.layer(y)


def of_values_it_seems(model, x, cached):
    y = model.layer(model.layer(x) * cached.table(8))
    try:
        y.sum().item()
    except RuntimeError:
        y = y.sum()
    return y


FORWARDS = {
    "a tensor": lambda m, x, cached: m.layer(m.layer(x) * cached.table(8)),
    "in containers": lambda m, x, cached: m.layer(m.layer(x) * cached.tables(8)["first"][0]),
    "a view": lambda m, x, cached: m.layer(m.layer(x) * cached.tables(8)["first"][1]),
    "by model": lambda m, x, cached: m.layer(m.layer(x) * cached.of_model(m, 8)),
    "and values are needed": of_values,
    "and an error is caught": of_values_it_seems,
}


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "a step"])
@pytest.mark.parametrize("forward", FORWARDS.values(), ids=FORWARDS)
def test_a_model_runs_after_its_functions_cached_what_they_made(forward, backward, cached):
    cached.word(3)
    model = Calling(lambda m, x: forward(m, x, cached), layer=nn.Linear(8, 8))
    report = audit(model, (2, 8), backward=backward)
    assert (report.macs, report.total.crosscheck) == (2 * 2 * 8 * 8, "exact")
    assert not backward or report.total.training.crosscheck == "exact"
    model(torch.randn(2, 8)).sum().backward()
    assert cached.word.cache_info().currsize == 1  # it holds none, and is left as it is


def test_a_cache_that_was_filled_before_is_left_as_it_is(cached):
    made = cached.table(8)
    audit(Calling(lambda m, x: x.cpu() * cached.table(8)), (2, 8))
    assert cached.table(8) is made


def test_caches_are_only_looked_for_if_a_tensor_of_the_run_is_alive(monkeypatch):
    asked = []
    monkeypatch.setattr(caches.gc, "get_objects", lambda: asked.append(1) or [])
    layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten())
    audit(layers, torch.ones(2, 3, 8, 8, requires_grad=True), backward=True)
    assert not asked
    kept = {}
    audit(Calling(lambda m, x: x + kept.setdefault(8, torch.ones(8))), (2, 8))
    assert asked
