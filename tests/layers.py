"""Small modules, and the options of a convolution, that several tests try."""

import torch
from torch import nn

OPTIONS = [  # of nn.Conv1d, nn.Conv2d and nn.Conv3d
    {},
    {"bias": False},
    {"stride": 2, "padding": 1},
    {"dilation": 2, "padding": 2},
    {"padding": "same", "dilation": 2},
    {"padding": "valid", "stride": 3},
    {"padding": 1, "padding_mode": "replicate"},
    {"padding": "same", "padding_mode": "circular"},
    {"padding": 1, "dtype": torch.float64},
    {"device": "meta"},
]


class Calling(nn.Module):
    """A model whose forward is a function of itself and the inputs."""

    def __init__(self, function, **parts):
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *args, **kwargs):
        return self.function(self, *args, **kwargs)


def and_why_they_stay():
    """New layers, each with why it is not rewritten as separable; "" if it is."""
    return [
        (nn.Conv2d(4, 8, 3), ""),
        (nn.Conv1d(4, 8, 3), ""),
        (nn.Conv3d(4, 8, 3), ""),
        (nn.Conv2d(4, 8, (1, 3)), ""),
        (nn.Conv2d(4, 8, 1), "pointwise"),
        (nn.Conv2d(4, 4, 3, groups=4), "depthwise"),
        (nn.Conv2d(4, 8, 3, groups=4), "depthwise"),
        (nn.Conv2d(4, 8, 3, groups=2), "grouped"),
        (nn.ConvTranspose2d(4, 8, 3), "transposed"),
        (nn.ConvTranspose2d(4, 4, 3, groups=4), "transposed"),
        (nn.Conv2d(4, 1, 3), "no saving"),
        (nn.Conv2d(4, 2, (1, 2)), "no saving"),
        (type("Mine", (nn.Conv2d,), {})(4, 8, 3), "subclass"),
        (nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 8, 3)), "derived weight"),
    ]
