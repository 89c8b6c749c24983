"""Only a copy of a model runs, whatever the model keeps, overrides or changes."""

import copy
import functools
import random
import threading
import types
import warnings
import weakref

import numpy as np
import pytest
import torch
from layers import Calling
from torch import nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional as F  # noqa: N812
from torch.utils._python_dispatch import TorchDispatchMode, _len_torch_dispatch_stack

from dscalc.errors import DscalcError
from dscalc.pytorch import audit, to_separable
from dscalc.pytorch.copies import copy_of

IMAGE = torch.zeros(1, 3, 16, 16)
VECTOR = torch.zeros(2, 8)


def conv(*args, **kwargs):
    return nn.Conv2d(*(args or (3, 16, 3)), **{"padding": 1, **kwargs})


CONV = 256 * 16 * 27
HELD = 448 + 32


class WithHead(nn.Module):
    """A convolution and a norm; in training mode a head too."""

    def __init__(self):
        super().__init__()
        self.a, self.norm, self.aux = conv(), nn.BatchNorm2d(16), conv(16, 64, 3)

    def forward(self, x):
        y = self.norm(self.a(x))
        return (y, self.aux(y)) if self.training else y


HEAD = 16 * 64 * 9 + 64


def replaced(forward):
    """Make a model whose forward is replaced by a function of it."""

    def make():
        model = WithHead()
        model.forward = forward(model)
        return model

    return make


def hooked():
    model = WithHead()
    model.register_forward_hook(lambda *_: model.norm(model.a(IMAGE.to(model.a.weight.device))))
    return model


def by_weak_reference():
    child = Calling(lambda m, x: m.parent().norm(m.parent().a(x)))
    model = WithHead()
    child.parent, model.child = weakref.ref(model), child
    model.forward = lambda x: model.child(x)
    return model


def by_tensors():
    model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8))
    norm, weight = model[1], model[0].weight
    mean, variance = norm.running_mean, norm.running_var
    model.forward = lambda x: F.batch_norm(F.linear(x, weight), mean, variance, training=True)
    return model


def by_an_object():
    holder, model = types.SimpleNamespace(), WithHead()
    model.steps = {"all": [functools.partial(WithHead.forward, model)]}
    holder.call = lambda x: model.norm(model.a(x))
    model.holder = holder
    return model


def by_its_mode():
    """The function touches nothing of the original that runs."""
    model = Calling(lambda m, x: x if m.trains() else m.a(x), a=conv())
    model.calls = 0

    def trains():
        model.calls += 1
        return model.training

    model.trains = trains
    return model


def compiled_in_place():
    model = WithHead()
    model.compile(backend="eager")
    return model


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.norm = conv(), nn.BatchNorm2d(16)

    def forward(self, x):
        return self.norm(self.a(x))


def no(*args, **kwargs):
    raise RuntimeError("not for you")


def overriding(**methods):
    return type("Overriding", (Plain,), methods)


def three_times():
    model = nn.Sequential(conv())

    def forward(self, x):
        for _ in range(3):
            y = self._conv_forward(x, self.weight, self.bias)
        return y

    model[0].forward = types.MethodType(forward, model[0])
    return model


def delete(model, x):
    if hasattr(model, "aux"):
        del model.aux
    return model.fc(x)


def replace(model, x):
    model.fc = nn.Linear(8, 4)
    return model.fc(x)


def add(model, x):
    model.late = nn.Linear(8, 4)
    return model.late(model.fc(x))


def ensemble(model, x):
    params, buffers = stack_module_state(list(model.nets))
    net = model.nets[0]
    call = vmap(lambda p, b: functional_call(net, (p, b), (x,)))
    return call(params, buffers)


class Fused(nn.Module):
    """Its ``eval`` makes the layer that runs; then nobody may set attributes."""

    def __init__(self):
        super().__init__()
        self.a, self.one = conv(), conv(3, 16, 1, padding=0)
        self.fused = None

    def train(self, mode=True):
        if not mode:
            self.fused = conv(device=self.a.weight.device)
        return super().train(mode)

    def __setattr__(self, name, value):
        if self.__dict__.get("fused") is not None:
            raise AttributeError(name)
        super().__setattr__(name, value)

    def forward(self, x):
        return self.fused(x)


class Merging(nn.Module):
    """Its ``eval`` adds one weight to the other, and deletes a head."""

    def __init__(self):
        super().__init__()
        self.weight, self.more = (nn.Parameter(torch.randn(8, 8)) for _ in range(2))
        self.aux = nn.Linear(8, 8)

    def train(self, mode=True):
        super().train(mode)
        if not mode:
            self.weight.data += self.more
            del self.aux
        return self

    def forward(self, x):
        return F.linear(x, self.weight)


# Makes a model; its inputs, MACs and params.
MODELS = {
    "a lambda as forward": (
        replaced(lambda model: lambda x: WithHead.forward(model, x)), IMAGE, CONV, HELD + HEAD,
    ),
    "a bound method": (
        replaced(lambda model: types.MethodType(WithHead.forward, model)), IMAGE, CONV, HELD + HEAD,
    ),
    "a partial": (
        replaced(lambda model: functools.partial(WithHead.forward, model)), IMAGE, CONV,
        HELD + HEAD,
    ),
    "a decorated forward": (
        replaced(lambda model: torch.no_grad()(model.forward)), IMAGE, CONV, HELD + HEAD,
    ),
    "a compiled forward": (
        replaced(lambda model: torch.compile(model.forward, backend="eager")), IMAGE, CONV,
        HELD + HEAD,
    ),
    "compiled in place": (compiled_in_place, IMAGE, CONV, HELD + HEAD),
    "a hook": (hooked, IMAGE, 2 * CONV, HELD + HEAD),
    "a weak reference": (by_weak_reference, IMAGE, CONV, HELD + HEAD),
    "tensors in a closure": (by_tensors, VECTOR, 2 * 64, 72 + 16),
    "an object": (
        lambda: Calling(lambda m, x: m.part.holder.call(x), part=by_an_object()), IMAGE, CONV,
        HELD + HEAD,
    ),
    "a function that asks for the mode": (by_its_mode, IMAGE, CONV, 448),
    "train() that returns nothing": (
        overriding(train=lambda self, mode=True: None), IMAGE, CONV, HELD,
    ),
    "train() that leaves the mode": (
        type("Training", (WithHead,), {"train": lambda self, mode=True: self}), IMAGE, CONV,
        HELD + HEAD,
    ),
    "methods that raise": (
        overriding(
            train=no, eval=no, modules=no, named_modules=no, parameters=no, named_parameters=no,
            buffers=no, children=no, get_submodule=no, state_dict=no, to=no, __repr__=no,
        ),
        IMAGE, CONV, HELD,
    ),
    "no parameters": (
        overriding(parameters=lambda self: iter(()), named_parameters=lambda self, **_: iter(())),
        IMAGE, CONV, HELD,
    ),
    "an __eq__ that raises": (overriding(__eq__=no, __hash__=no), IMAGE, CONV, HELD),
    "all are equal": (
        overriding(__eq__=lambda self, other: True, __hash__=lambda self: 1), IMAGE, CONV, HELD,
    ),
    "a layer with its own forward": (three_times, IMAGE, 3 * CONV, 448),
    "eval() that merges": (Merging, VECTOR, 2 * 64, 2 * 64 + 72),
    "eval() that makes a layer": (Fused, IMAGE, CONV, 448 + 64),
    "a mask": (
        lambda: Calling(
            lambda m, x: F.conv2d(x, m.w * (m.scores > 0), padding=1),
            w=nn.Parameter(torch.randn(16, 3, 3, 3)), scores=nn.Parameter(torch.randn(16, 3, 3, 3)),
        ),
        IMAGE, CONV, 2 * 432,
    ),
    "a kernel made of the weight": (
        lambda: Calling(
            lambda m, x: F.conv2d(x, m.weight.repeat(2, 1, 1, 1), padding=1),
            weight=nn.Parameter(torch.randn(16, 3, 3, 3)),
        ),
        IMAGE, 2 * CONV, 432,
    ),
    "a constant kernel": (
        lambda: Calling(
            lambda m, x: F.conv2d(x, torch.ones(3, 1, 3, 3), padding=1, groups=3) * m.gain,
            gain=nn.Parameter(torch.ones(1)),
        ),
        IMAGE, 256 * 27, 1,
    ),
    "weight norm without a bias": (
        lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(conv(bias=False))), IMAGE, CONV,
        432 + 16,
    ),
    "it deletes a head": (
        lambda: Calling(delete, fc=nn.Linear(8, 8), aux=nn.Linear(8, 100)), VECTOR, 128, 72 + 900,
    ),
    "it replaces a layer": (lambda: Calling(replace, fc=nn.Linear(8, 8)), VECTOR, 64, 72),
    "it adds a layer": (lambda: Calling(add, fc=nn.Linear(8, 8)), VECTOR, 128 + 64, 72),
    "five models at once": (
        lambda: Calling(ensemble, nets=nn.ModuleList(nn.Sequential(conv()) for _ in range(5))),
        IMAGE, 5 * CONV, 5 * 448,
    ),
    "a scripted part": (
        lambda: nn.Sequential(torch.jit.script(Plain())), IMAGE, CONV, HELD,
    ),
}  # fmt: skip


def parts_of(model):
    """All that a user can see of a model, which its own methods may hide."""
    found, waiting = {}, [model]
    while waiting:
        module = waiting.pop()
        if id(module) in found:
            continue
        attributes = dict(vars(module))
        nests = {name: list(value.items()) for name, value in attributes.items()
                 if isinstance(value, dict)}  # fmt: skip
        tensors = [t for held in (module._parameters, module._buffers) for t in held.values()]
        values = [(t, t.detach().clone(), t.requires_grad) for t in tensors if t is not None]
        found[id(module)] = module, attributes, nests, values
        waiting += [part for part in module._modules.values() if part is not None]
    return found


def assert_same(before, after):
    assert before.keys() == after.keys()
    for key, (_, attributes, nests, values) in before.items():
        _, now, nests_now, values_now = after[key]
        assert attributes.keys() == now.keys()
        assert all(now[name] is value for name, value in attributes.items())
        for name, items in nests.items():
            assert [(k, id(v)) for k, v in items] == [(k, id(v)) for k, v in nests_now[name]]
        for (tensor, value, trains), (tensor_now, value_now, trains_now) in zip(
            values, values_now, strict=True
        ):
            assert tensor is tensor_now
            assert torch.equal(value, value_now)
            assert (trains, tensor.device.type) == (trains_now, "cpu")


@pytest.mark.parametrize("values", [False, True], ids=["on meta", "with values"])
@pytest.mark.parametrize("block", [None, "separable"])
@pytest.mark.parametrize(("make", "features", "macs", "params"), MODELS.values(), ids=MODELS)
def test_the_copy_is_counted_and_the_model_left_as_it_is(
    make, features, macs, params, block, values
):
    model = make()
    if values:
        model = Calling(lambda m, x: m.part(x) if x.sum() < 1 else x, part=model)
    before = parts_of(model)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    report = audit(model, features, block=block)
    assert (report.macs, report.params, report.faults) == (macs, params, [])
    assert report.total.crosscheck == "exact"
    assert sum(row.as_is.cost.params for row in report.rows) == params
    assert_same(before, parts_of(model))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == states[1:]


def kept_by(model, features=IMAGE):
    report = audit(model, features, block="separable")
    return {row.name: row.kept for row in report.rows if row.as_is.cost.macs}


def test_a_replaced_forward_has_the_rows_of_the_models_modules():
    make, features, *_ = MODELS["a lambda as forward"]
    report = audit(make(), features, block="separable")
    assert [(row.name, row.kind, row.kept) for row in report.rows if row.as_is.cost.macs] == [
        ("a", "conv", "")
    ]
    assert report.notes == [f"1 module did not run: aux ({HEAD:,} params)"]


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("a layer with its own forward", "own forward"),
        ("five models at once", "functional"),
        ("a scripted part", "scripted"),
    ],
)
def test_a_layer_that_its_module_does_not_run_as_it_is_is_kept(model, reason):
    assert set(kept_by(MODELS[model][0]()).values()) == {reason}


@pytest.mark.parametrize(
    ("model", "changes"),
    [
        ("it deletes a head", "aux is deleted"),
        ("it replaces a layer", "fc is replaced"),
        ("it adds a layer", "late is added"),
        ("eval() that merges", "aux is deleted"),
        ("eval() that makes a layer", "fused is added"),
    ],
)
def test_a_model_that_changes_itself_is_said_to(model, changes):
    make, features, *_ = MODELS[model]
    said = f"the model changes itself ({changes}): its params are those before"
    assert said in audit(make(), features).notes


def test_a_model_that_is_its_own_copy_is_refused():
    own = type("Own", (nn.Conv2d,), {"__deepcopy__": lambda self, memo: self})(3, 4, 3)
    with pytest.raises(DscalcError, match=r"^0 is its own copy \(by __deepcopy__ of Own\)"):
        audit(nn.Sequential(own), IMAGE)


def test_a_layer_whose_weight_is_read_can_be_replaced():
    """As ViT, CLIP and LoRA cast their inputs."""
    model = Calling(lambda m, x: m.conv(x.to(m.conv.weight.dtype)) + m.conv.bias.sum(), conv=conv())
    separable = to_separable(model)
    assert separable(IMAGE).shape == (1, 16, 16, 16)
    assert separable.conv.weight is separable.conv.pointwise.weight
    assert len(list(separable.parameters())) == len(separable.state_dict()) == 4
    assert copy.deepcopy(separable).conv.bias is not separable.conv.bias


def test_the_copy_of_a_scripted_module_is_on_its_device():
    twin = copy_of("meta", nn.Sequential(torch.jit.script(Plain()))).model
    assert {tensor.device.type for tensor in twin.state_dict().values()} == {"meta"}


# What cannot be copied, or does not run as one tensor.


class DistributedDataParallel(nn.Module):
    """By its name as torch's, which needs a group of processes."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(x)


def said(model, *inputs):
    with pytest.raises(DscalcError) as caught:
        audit(model, *inputs)
    return str(caught.value)


def test_a_model_that_is_spread_over_processes_points_to_its_module():
    model = nn.Sequential(nn.Linear(8, 8), DistributedDataParallel(nn.Linear(8, 8)))
    assert said(model, VECTOR) == (
        "1 is spread over processes (DistributedDataParallel); audit its .module, before it is "
        "wrapped"
    )


@pytest.mark.parametrize("held", [threading.Lock(), {"a": [threading.Lock()]}, (n for n in "a")])
def test_what_cannot_be_copied_is_named(held):
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU())
    model[1].guard = held
    assert said(model, VECTOR).endswith(": its 1.guard; set that to None first)")


class Endless(nn.Module):
    def forward(self, x):
        return self(x)


class Ragged(nn.Module):
    def __init__(self, layout):
        super().__init__()
        self.layout, self.linear = layout, nn.Linear(8, 8)

    def forward(self, x):
        return self.linear(torch.nested.nested_tensor([x, x[:1]], layout=self.layout))


def test_a_model_without_end_is_told_so():
    assert said(Endless(), VECTOR).endswith(
        "; it calls itself without end, or too deeply for Python"
    )


@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_tensors_are_named(layout):
    assert said(Ragged(layout), VECTOR).endswith(
        " runs on a nested tensor, which is not supported; give one padded tensor"
    )
    nested = torch.nested.nested_tensor([VECTOR, VECTOR[:1]], layout=layout)
    assert said(nn.Linear(8, 8), nested) == (
        "nested tensors as inputs are not supported; give one padded tensor"
    )


@pytest.mark.skipif(torch.__version__.startswith("2.4."), reason="torch itself crashes there")
def test_no_mode_of_a_model_stays_behind():
    class Same(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            return func(*args, **(kwargs or {}))

    def forward(net, x):
        Same().__enter__()
        return net.one(x)

    before = _len_torch_dispatch_stack()
    audit(Calling(forward, one=nn.Linear(8, 8)), VECTOR)
    assert _len_torch_dispatch_stack() == before


def quantised():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is deprecated
        return torch.quantize_per_tensor(torch.ones(8, 4), 0.1, 0, torch.qint8)


def test_a_buffer_that_meta_has_none_of_runs_on_real_tensors():
    model = Calling(lambda m, x: x @ m.table.dequantize(), weight=nn.Parameter(torch.ones(2)))
    model.register_buffer("table", quantised())
    report = audit(model, torch.zeros(3, 8))
    assert report.macs == 3 * 8 * 4
    assert report.total.memory.weight_bytes == 2 * 4 + 32
    assert report.notes[-1].startswith("the model needs values (NotImplementedError: ")


def test_a_buffer_that_cannot_be_copied_is_named():
    model = nn.Sequential(nn.Linear(8, 8))
    model[0].register_buffer("packed", torch.ones(8, 8).to_mkldnn())
    with pytest.raises(DscalcError, match=r"cannot be copied, .*: its 0\.packed\)$"):
        audit(model, torch.zeros(3, 8))
