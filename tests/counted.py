"""Small models that counters disagree about, and what each counter printed for them.

The totals are what the tools themselves printed; `docs/tools/measure_peers.py --record` prints them
again for those that are installed.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


def classifier() -> nn.Module:
    """Convolutions, norms, pools and a linear layer, all of them torch's own modules."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(8, 16, 3, padding=1, groups=2, bias=False),
        nn.BatchNorm2d(16, affine=False),
        nn.ReLU6(),
        nn.AvgPool2d(2),
        nn.Conv2d(16, 24, 1),
        nn.GELU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(24, 10),
        nn.Softmax(1),
    )


def decoder() -> nn.Module:
    """Transposed convolutions, upsampling, and the norms that are not batch norms."""
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, 2, 1),
        nn.GroupNorm(3, 12),
        nn.PReLU(),
        nn.ConvTranspose2d(12, 8, 2, 2),
        nn.InstanceNorm2d(8),
        nn.LeakyReLU(),
        nn.Upsample(scale_factor=2, mode="bilinear"),
        nn.Conv2d(8, 4, 3, padding=1),
        nn.SiLU(),
    )


class Functional(nn.Module):
    """Much of it by function, and a convolution of a class of its own."""

    class Own(nn.Conv2d):
        """A subclass, which tools that look for exact types do not see."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.own = self.Own(8, 8, 3, padding=1)
        self.fc = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = torch.relu(self.own(F.max_pool2d(x, 2)))
        x = x * torch.sigmoid(F.adaptive_avg_pool2d(x, 1)) + x
        tokens = F.gelu(self.fc(F.interpolate(x, scale_factor=2).flatten(2).transpose(1, 2)))
        weights = F.softmax(tokens.transpose(1, 2).matmul(tokens), -1)
        return torch.mul(F.linear(tokens @ weights, self.fc.weight), 2.0).mean(1)


class Encoder(nn.Module):
    """Patches, layer norms and attention."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, 4)
        self.norm = nn.LayerNorm(16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        normed = self.norm(x)
        x = x + self.attention(normed, normed, normed, need_weights=False)[0]
        return x + self.mlp(self.norm(x))


def string_padding() -> nn.Module:
    """A convolution whose padding is a word."""
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding="same"), nn.BatchNorm2d(8), nn.Hardswish())


MODELS = {
    "classifier": classifier,
    "decoder": decoder,
    "functional": Functional,
    "encoder": Encoder,
    "string_padding": string_padding,
}
IMAGE = (1, 3, 32, 32)

# Printed by the counters themselves, on torch 2.14.1. "attention not fused" is what fvcore printed
# with need_weights=True, for then torch runs attention as two products.
PRINTED: dict[str, dict[str, int]] = {
    "classifier": {
        "fvcore 0.1.5": 104_048,
        "FlopCounterMode": 197_088,
        "FlopCounterMode, CPU": 197_088,
        "FlopCounterMode, CPU, no_grad": 197_088,
        "ultralytics-thop 2.2.3": 110_501,
        "ptflops 0.7.5": 118_916,
        "ptflops 0.7.5 (aten)": 100_986,
        "torchinfo 1.8.0": 101_002,
        "calflops 0.3.2": 98_544,
        "torchprofile 0.1.0": 100_872,
        "torchscan 0.2.0": 105_864,
        "calflops 0.3.2 (FLOPs)": 210_538,
        "rethinking-network-pruning": 213_354,
        "thop 0.1.1": 109_477,
        "ptflops 0.6.9": 113_018,
        "thop 0.0.31": 107_784,
        "fvcore 0.1.5 in training mode": 113_264,
        "fvcore 0.1.5 (attention not fused)": 104_048,
        "thop of early 2020": 108_024,
        "thop of late 2019": 114_680,
        "thop of 2019": 114_670,
        "mmcv 1.7": 112_624,
        "torchstat 0.0.7": 112_240,
        "torchstat 0.0.7 (MAdd)": 216_563,
    },
    "decoder": {
        "fvcore 0.1.5": 1_540_096,
        "FlopCounterMode": 2_721_792,
        "FlopCounterMode, CPU": 2_721_792,
        "FlopCounterMode, CPU, no_grad": 2_721_792,
        "ultralytics-thop 2.2.3": 1_753_088,
        "ptflops 0.7.5": 1_499_136,
        "ptflops 0.7.5 (aten)": 1_388_544,
        "torchinfo 1.8.0": 1_683_481,
        "calflops 0.3.2": 1_360_896,
        "torchprofile 0.1.0": 1_798_144,
        "torchscan 0.2.0": 1_655_816,
        "calflops 0.3.2 (FLOPs)": 2_825_728,
        "rethinking-network-pruning": 2_937_856,
        "thop 0.1.1": 2_035_712,
        "ptflops 0.6.9": 1_741_824,
        "thop 0.0.31": 2_052_096,
        "fvcore 0.1.5 in training mode": 1_540_096,
        "fvcore 0.1.5 (attention not fused)": 1_540_096,
        "thop of early 2020": 2_052_096,
        "thop of late 2019": 2_052_096,
        "thop of 2019": 2_117_632,
        "mmcv 1.7": 1_446_912,
        "torchstat 0.0.7": 1_297_408,
        "torchstat 0.0.7 (MAdd)": 2_721_792,
    },
    "functional": {
        "fvcore 0.1.5": 641_024,
        "FlopCounterMode": 1_261_568,
        "FlopCounterMode, CPU": 1_261_568,
        "FlopCounterMode, CPU, no_grad": 1_261_568,
        "ultralytics-thop 2.2.3": 630_784,
        "ptflops 0.7.5": 411_712,
        "ptflops 0.7.5 (aten)": 641_024,
        "torchinfo 1.8.0": 230_032,
        "calflops 0.3.2": 565_248,
        "torchprofile 0.1.0": 641_040,
        "torchscan 0.2.0": 434_176,
        "calflops 0.3.2 (FLOPs)": 1_177_664,
        "rethinking-network-pruning": 747_656,
        "thop 0.1.1": 286_720,
        "ptflops 0.6.9": 294_920,
        "thop 0.0.31": 294_912,
        "fvcore 0.1.5 in training mode": 641_024,
        "fvcore 0.1.5 (attention not fused)": 641_024,
        "thop of early 2020": 360_448,
        "thop of late 2019": 360_448,
        "thop of 2019": 352_256,
        "mmcv 1.7": 294_912,
    },
    "encoder": {
        "fvcore 0.1.5": 190_464,
        "FlopCounterMode": 622_592,
        "FlopCounterMode, CPU": 360_448,
        "FlopCounterMode, CPU, no_grad": 229_376,
        "ultralytics-thop 2.2.3": 343_936,
        "ptflops 0.7.5": 334_848,
        "ptflops 0.7.5 (aten)": 188_416,
        "torchinfo 1.8.0": 51_312,
        "calflops 0.3.2": 180_224,
        "torchprofile 0.1.0": 313_348,
        "torchscan 0.2.0": 114_688,
        "calflops 0.3.2 (FLOPs)": 373_760,
        "rethinking-network-pruning": 101_424,
        "thop 0.1.1": 122_880,
        "ptflops 0.6.9": 327_728,
        "thop 0.0.31": 115_712,
        "fvcore 0.1.5 in training mode": 190_464,
        "fvcore 0.1.5 (attention not fused)": 321_536,
        "thop of early 2020": 181_248,
        "thop of late 2019": 181_248,
        "thop of 2019": 178_176,
        "mmcv 1.7": 119_808,
    },
    "string_padding": {
        "fvcore 0.1.5": 16_384,
        "FlopCounterMode": 442_368,
        "FlopCounterMode, CPU": 442_368,
        "FlopCounterMode, CPU, no_grad": 442_368,
        "ultralytics-thop 2.2.3": 253_952,
        "ptflops 0.7.5": 245_760,
        "ptflops 0.7.5 (aten)": 229_376,
        "torchinfo 1.8.0": 229_392,
        "calflops 0.3.2": 221_184,
        "torchprofile 0.1.0": 8_192,
        "torchscan 0.2.0": 237_568,
        "calflops 0.3.2 (FLOPs)": 466_944,
        "rethinking-network-pruning": 466_944,
        "thop 0.1.1": 253_952,
        "ptflops 0.6.9": 245_760,
        "thop 0.0.31": 245_760,
        "fvcore 0.1.5 in training mode": 40_960,
        "fvcore 0.1.5 (attention not fused)": 16_384,
        "thop of early 2020": 245_760,
        "thop of late 2019": 262_144,
        "thop of 2019": 262_144,
        "mmcv 1.7": 245_760,
        "torchstat 0.0.7": 245_760,
        "torchstat 0.0.7 (MAdd)": 475_136,
    },
}
