"""What pruning leaves: MACs and params of weights that are not zero."""

import pytest
import torch
from architectures import mobilenet_v2, resnet50
from layers import Calling
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.nn.utils import prune

from dscalc import DscalcError
from dscalc.pytorch import audit


def pruned(model, *, keep_masks=False):
    """Prune each convolution and linear layer, each to another part."""
    torch.manual_seed(0)
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    for number, layer in enumerate(layers):
        prune.l1_unstructured(layer, "weight", amount=0.1 + 0.8 * (number % 7) / 7)
        if not keep_masks:
            prune.remove(layer, "weight")
    return model.eval()


def products(model, image):
    """The second counter: sums of products of ones with a 0/1 mask of the weights."""
    macs = []

    def hook(layer, inputs, _):
        mask = (layer.weight != 0).double()
        ones = torch.ones_like(inputs[0], dtype=torch.double)
        if isinstance(layer, nn.Linear):
            macs.append(F.linear(ones, mask).sum())
        else:
            height, width = layer.padding
            ones = F.pad(ones, (width, width, height, height), value=1)
            macs.append(F.conv2d(ones, mask, None, layer.stride, groups=layer.groups).sum())

    hooks = [
        layer.register_forward_hook(hook)
        for layer in model.modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    with torch.no_grad():
        model(image)
    for handle in hooks:
        handle.remove()
    return int(sum(macs))


IMAGE = torch.zeros(1, 3, 32, 32)


@pytest.mark.parametrize("keep_masks", [False, True], ids=["zeros", "masks"])
@pytest.mark.parametrize("make", [lambda: mobilenet_v2()[:8], lambda: resnet50()[:7]])
def test_macs_without_zeros_are_products_with_a_mask(make, keep_masks):
    model = pruned(make(), keep_masks=keep_masks)
    report = audit(model, IMAGE, nonzero=True, verify=False)
    left = report.total.nonzero
    assert left.macs == products(model, IMAGE)
    assert left.macs < report.macs
    for_each = [row.nonzero for row in report.rows]
    assert sum(cost.macs for cost in for_each) == left.macs
    assert sum(cost.params for cost in for_each) == left.params
    held = {name.removesuffix("_orig"): p for name, p in model.named_parameters()}
    masks = {name.removesuffix("_mask"): b for name, b in model.named_buffers() if "mask" in name}
    expected = sum(int((p * masks.get(name, 1)).count_nonzero()) for name, p in held.items())
    assert left.params == expected
    assert report.notes == [
        "the model needs values (to count zeros among the weights): it ran on real tensors"
    ]


class Recurrent(nn.Module):
    """Weights in one parameter of many parts, and products of two results."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(4, 8, batch_first=True)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.tied = nn.Linear(8, 8, bias=False)
        with torch.no_grad():
            self.lstm.weight_ih_l0[:16] = 0
            self.lstm.weight_hh_l0[:, 0] = 0
            self.attention.in_proj_weight[8:12] = 0
            self.tied.weight.fill_(0)

    def forward(self, x, memory):
        x = self.lstm(x)[0]
        return F.linear(self.attention(x, memory, memory)[0], self.tied.weight.t())


def test_parts_of_a_parameter_count_by_their_own_zeros():
    x, memory = torch.zeros(1, 3, 4), torch.zeros(1, 5, 8)
    report = audit(Recurrent().eval(), x, memory, nonzero=True, verify=False)
    by_kind = {row.kind: (row.as_is.cost.macs, row.nonzero.macs) for row in report.rows}
    lstm = 3 * 4 * 16 + 3 * 32 * 7  # half of the first weights; 7 of 8 columns of the others
    assert by_kind["lstm"] == (3 * 32 * (4 + 8), lstm)
    projections = [row for row in report.rows if row.name.startswith("attention")]
    dense = sum(row.as_is.cost.macs for row in projections)
    # Half of the keys' part is zero: 4 of its 8 rows, for each of 5 memories.
    assert sum(row.nonzero.macs for row in projections) == dense - 5 * 4 * 8
    [tied] = [row for row in report.rows if row.name == "tied"]
    assert (tied.as_is.cost.macs, tied.nonzero.macs, tied.nonzero.params) == (3 * 64, 0, 0)


def of_one_row(*shape):
    """A parameter, of which all but the first row is zero."""
    weight = torch.zeros(shape)
    weight[0] = 1
    return nn.Parameter(weight)


FUNCTIONS = {
    "an einsum that copies its weight in another order": (
        lambda m, x: torch.einsum("bi,eio->beo", x, m.weight), of_one_row(3, 4, 6), 2 * 4 * 6,
    ),
    "an einsum of three": (
        lambda m, x: torch.einsum("bi,io,bo->b", x, m.weight, x), of_one_row(4, 4), 2 * 4 + 2 * 4,
    ),
    "a vector": (lambda m, x: x @ m.weight, of_one_row(4), 2),
    "Kronecker's": (lambda m, x: torch.kron(m.weight, x), of_one_row(3, 2), 2 * 8),
    "what is added is not multiplied": (
        lambda m, x: torch.addmm(m.weight, x, x.T), of_one_row(2, 2), 2 * 4 * 2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_a_parameter(name):
    function, weight, left = FUNCTIONS[name]
    report = audit(Calling(function, weight=weight), torch.ones(2, 4), nonzero=True)
    assert report.total.nonzero.macs == left


def test_zeros_are_not_counted_where_nobody_asks():
    report = audit(nn.Linear(3, 4), torch.zeros(1, 3))
    assert report.total.nonzero is None
    assert "nonzero_macs" not in report.fields.names


def test_weights_without_values_have_no_zeros_to_count():
    model = nn.Linear(3, 4, device="meta")
    with pytest.raises(DscalcError, match=r"to count zeros among the weights.*on the meta device"):
        audit(model, torch.zeros(1, 3), nonzero=True)


SOURCE = """
import torch
from torch import nn
def net():
    net = nn.Sequential(nn.Linear(4, 3, bias=False), nn.Linear(3, 2))
    with torch.no_grad():
        net[0].weight[0] = 0
        net[1].bias.fill_(0)
    return net
"""


@pytest.fixture
def net(here):
    (here / "pruned_net.py").write_text(SOURCE)
    return "pruned_net.py:net"


def test_a_field_that_the_command_line_names_is_counted(run, net):
    asked = "--get nonzero_macs --get nonzero_params --get macs"
    assert run(f"model {net} --input 4 -b 2 {asked}").stdout == "28\t14\t36\n"
    flops = run(f"model {net} --input 4 --unit flops --get nonzero_flops")
    assert flops.stdout == "28\n"
    assert run(f"model {net} --input 4 --assert nonzero_macs<=14").code == 0
    assert run(f"model {net} --input 4 --assert nonzero_macs<=13").code == 1
    table = run(f"model {net} --input 4 --sort nonzero_macs").stdout
    assert "nonzero macs" in table
    rows = run(f"model {net} {net} --input 4 --sort nonzero_macs --get nonzero_macs")
    assert rows.stdout == "14\n14\n"
    assert "nonzero" not in run(f"model {net} --input 4 -f json").stdout
