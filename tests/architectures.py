"""Plain-torch models with known costs, to audit in tests.

Figures are at batch 1. MACs are those of convolutions and linear layers, without biases,
normalisation, activations, pooling and resizing. Parameters include biases, two per batch-norm
channel, and a shared parameter once. Models are returned in training mode, as torch builds them.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


class Residual(nn.Module):
    """The input plus what the body makes of it."""

    def __init__(self, *body: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*body)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.body(x)
        return out


def conv_bn(
    c_in: int, c_out: int, kernel: int, stride: int = 1, groups: int = 1
) -> tuple[nn.Module, nn.Module]:
    """A "same"-size square convolution without bias, and its batch normalisation."""
    conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return conv, nn.BatchNorm2d(c_out)


def pooled_classifier(channels: int, classes: int) -> tuple[nn.Module, nn.Module, nn.Module]:
    """Global average pooling and a fully connected layer with bias."""
    return nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)


class FunctionalPool(nn.Module):
    """Global average pooling by a function, as in torchvision's MobileNetV2."""

    def forward(self, x: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(x, 1)


# ResNet-50


class Bottleneck(nn.Module):
    """1x1 down, 3x3, 1x1 up, with a projection shortcut wherever the shape changes."""

    def __init__(self, c_in: int, width: int, stride: int, stride_in_1x1: bool) -> None:
        super().__init__()
        c_out = 4 * width
        first, second = (stride, 1) if stride_in_1x1 else (1, stride)
        self.last = nn.ReLU()  # as in torchvision, one that is called three times
        self.body = nn.Sequential(
            *conv_bn(c_in, width, 1, first),
            self.last,
            *conv_bn(width, width, 3, second),
            self.last,
            *conv_bn(width, c_out, 1),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or c_in != c_out:
            self.shortcut = nn.Sequential(*conv_bn(c_in, c_out, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.body(x) + self.shortcut(x))
        return out


def resnet50(stride_in_1x1: bool = False) -> nn.Sequential:
    """ResNet-50 (arXiv 1512.03385): 25,557,032 parameters, 4,089,184,256 MACs at 224.

    The paper strides in a block's first 1x1 convolution instead of its 3x3: 3,857,973,248 MACs.
    """
    return bottlenecks((3, 4, 6, 3), stride_in_1x1)


def resnet152() -> nn.Sequential:
    """ResNet-152 (arXiv 1512.03385): 60,192,808 parameters, 11,513,626,624 MACs at 224."""
    return bottlenecks((3, 8, 36, 3))


def bottlenecks(numbers: tuple[int, ...], stride_in_1x1: bool = False) -> nn.Sequential:
    """A ResNet of so many bottlenecks in each of its stages."""
    layers: list[nn.Module] = [*conv_bn(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1)]
    channels = 64
    for width, blocks in zip((64, 128, 256, 512), numbers, strict=True):
        for index in range(blocks):
            block_stride = 2 if index == 0 and width > 64 else 1
            layers.append(Bottleneck(channels, width, block_stride, stride_in_1x1))
            channels = 4 * width
    return nn.Sequential(*layers, *pooled_classifier(channels, 1000))


# MobileNets


def mobilenet_v1(alpha: float = 1.0) -> nn.Sequential:
    """MobileNetV1 (arXiv 1704.04861): 4,231,976 parameters, 568,740,352 MACs at 224.

    The last stride is 1: the 2 in the paper's Table 1 contradicts its own feature map sizes.
    """
    channels = int(32 * alpha)
    layers: list[nn.Module] = [*conv_bn(3, channels, 3, 2), nn.ReLU()]
    plan = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)]
    plan += [(512, 1)] * 5 + [(1024, 2), (1024, 1)]
    for base, stride in plan:
        c_out = int(base * alpha)
        layers += [*conv_bn(channels, channels, 3, stride, groups=channels), nn.ReLU()]
        layers += [*conv_bn(channels, c_out, 1), nn.ReLU()]
        channels = c_out
    return nn.Sequential(*layers, *pooled_classifier(channels, 1000))


def inverted_residual(c_in: int, c_out: int, stride: int, expansion: int) -> nn.Module:
    """1x1 expansion (unless by 1), depthwise 3x3, linear 1x1; a shortcut where shapes allow it."""
    hidden = expansion * c_in
    layers: list[nn.Module] = []
    if expansion != 1:
        layers += [*conv_bn(c_in, hidden, 1), nn.ReLU6()]
    layers += [*conv_bn(hidden, hidden, 3, stride, groups=hidden), nn.ReLU6()]
    layers += conv_bn(hidden, c_out, 1)
    return Residual(*layers) if stride == 1 and c_in == c_out else nn.Sequential(*layers)


def mobilenet_v2(width: float = 1.0) -> nn.Sequential:
    """MobileNetV2 (arXiv 1801.04381): 3,504,872 parameters, 300,774,272 MACs at 224.

    ``width`` multiplies all channels, to the nearest multiple of 8, but those of the classifier.
    """

    def scaled(channels: int) -> int:
        return max(8, int(channels * width + 4) // 8 * 8)

    channels = scaled(32)
    layers: list[nn.Module] = [*conv_bn(3, channels, 3, 2), nn.ReLU6()]
    plan = [  # expansion, output channels, repeats, first stride
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ]
    for expansion, base, repeats, stride in plan:
        c_out = scaled(base)
        for index in range(repeats):
            block_stride = stride if index == 0 else 1
            layers.append(inverted_residual(channels, c_out, block_stride, expansion))
            channels = c_out
    layers += [*conv_bn(channels, 1280, 1), nn.ReLU6()]
    _, flatten, fc = pooled_classifier(1280, 1000)
    return nn.Sequential(*layers, FunctionalPool(), flatten, fc)


# VGG and SqueezeNet


def vgg16() -> nn.Sequential:
    """VGG-16 (arXiv 1409.1556): 138,357,544 parameters, 15,470,264,320 MACs at 224."""
    layers: list[nn.Module] = []
    channels = 3
    for width, convs in [(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)]:
        for _ in range(convs):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2))
    layers += [nn.AdaptiveAvgPool2d(7), nn.Flatten(), nn.Linear(512 * 7 * 7, 4096), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 1000))


class Fire(nn.Module):
    """A 1x1 that squeezes, and a 1x1 and a 3x3 that expand."""

    def __init__(self, c_in: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Sequential(nn.Conv2d(c_in, squeeze, 1), nn.ReLU())
        self.expand1 = nn.Sequential(nn.Conv2d(squeeze, expand, 1), nn.ReLU())
        self.expand3 = nn.Sequential(nn.Conv2d(squeeze, expand, 3, padding=1), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze(x)
        return torch.cat([self.expand1(x), self.expand3(x)], 1)


def squeezenet1_0() -> nn.Sequential:
    """SqueezeNet 1.0 (arXiv 1602.07360): 1,248,424 parameters, 818,924,576 MACs at 224."""
    layers: list[nn.Module] = [nn.Conv2d(3, 96, 7, 2), nn.ReLU()]
    channels = 96
    plan = [None, (16, 64), (16, 64), (32, 128), None, (32, 128), (48, 192), (48, 192), (64, 256)]
    for widths in [*plan, None, (64, 256)]:
        if widths is None:
            layers.append(nn.MaxPool2d(3, 2, ceil_mode=True))
            continue
        layers.append(Fire(channels, *widths))
        channels = 2 * widths[1]
    return nn.Sequential(*layers, nn.Conv2d(512, 1000, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1))


# Vision Transformer


class Encoder(nn.Module):
    """Attention and two linear layers, each behind a layer norm and beside a shortcut."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.norms[0](x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        out: Tensor = x + self.mlp(self.norms[1](x))
        return out


class ViT(nn.Module):
    """Patches of 16x16, twelve encoders, and a classifier on each token that is for a class."""

    def __init__(self, width: int, heads: int, tokens: int = 1) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 16, 16)
        self.tokens = nn.Parameter(torch.zeros(1, tokens, width))
        self.encoders = nn.Sequential(*(Encoder(width, heads) for _ in range(12)))
        self.norm = nn.LayerNorm(width)
        self.heads = nn.ModuleList(nn.Linear(width, 1000) for _ in range(tokens))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.tokens, self.patches(x).flatten(2).transpose(1, 2)], 1)
        x = self.norm(self.encoders(x))
        return torch.stack([head(x[:, at]) for at, head in enumerate(self.heads)]).sum(0)


def vit_b_16() -> ViT:
    """ViT-B/16 (arXiv 2010.11929): 17,563,828,224 MACs at 224."""
    return ViT(768, 12)


def deit_s() -> ViT:
    """DeiT-S (arXiv 2012.12877): 4,598,882,304 MACs at 224."""
    return ViT(384, 6)


def deit_tiny(tokens: int = 1) -> ViT:
    """DeiT-Ti (arXiv 2012.12877): 1,253,683,200 MACs at 224; distilled, it has two tokens."""
    return ViT(192, 3, tokens)


# ConvNeXt


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of an NCHW tensor."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNeXtBlock(nn.Module):
    """Depthwise 7x7, then channels last: normalisation, two linear layers and a layer scale."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.mlp = nn.Sequential(
            nn.LayerNorm(dim, eps=1e-6), nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim)
        )
        self.scale = nn.Parameter(torch.full((dim,), 1e-6))

    def forward(self, x: Tensor) -> Tensor:
        branch: Tensor = self.mlp(self.depthwise(x).permute(0, 2, 3, 1)) * self.scale
        return x + branch.permute(0, 3, 1, 2)


def convnext_tiny() -> nn.Sequential:
    """ConvNeXt-T (arXiv 2201.03545): 28,589,128 parameters, 4,455,531,264 MACs at 224."""
    layers: list[nn.Module] = []
    channels = 3
    for dim, blocks in [(96, 3), (192, 3), (384, 9), (768, 3)]:
        if channels == 3:
            layers += [nn.Conv2d(channels, dim, 4, 4), ChannelNorm(dim, eps=1e-6)]
        else:
            layers += [ChannelNorm(channels, eps=1e-6), nn.Conv2d(channels, dim, 2, 2)]
        layers += [ConvNeXtBlock(dim) for _ in range(blocks)]
        channels = dim
    pool, flatten, linear = pooled_classifier(channels, 1000)
    return nn.Sequential(*layers, pool, flatten, nn.LayerNorm(channels, eps=1e-6), linear)


# U-Net


def double_conv(c_in: int, c_out: int) -> nn.Sequential:
    """Two 3x3 convolutions with bias, each followed by ReLU."""
    first = nn.Conv2d(c_in, c_out, 3, padding=1)
    second = nn.Conv2d(c_out, c_out, 3, padding=1)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU())


class UNet(nn.Module):
    """An encoder, and a decoder that concatenates the encoder's maps; pads, so nothing is cropped.

    The input's sides must be multiples of 2 ** depth.
    """

    def __init__(self, c_in: int, classes: int, width: int, depth: int) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(depth + 1)]
        pairs = list(pairwise(widths))
        self.stem = double_conv(c_in, width)
        self.down = nn.ModuleList(double_conv(low, high) for low, high in pairs)
        pairs.reverse()
        self.up = nn.ModuleList(nn.ConvTranspose2d(high, low, 2, 2) for low, high in pairs)
        self.merge = nn.ModuleList(double_conv(2 * low, low) for low, _ in pairs)
        self.classifier = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        skips = []
        for down in self.down:
            skips.append(x)
            x = down(F.max_pool2d(x, 2))
        for up, merge in zip(self.up, self.merge, strict=True):
            x = merge(torch.cat([skips.pop(), up(x)], dim=1))
        out: Tensor = self.classifier(x)
        return out


def unet(c_in: int = 1, classes: int = 2, width: int = 16, depth: int = 2) -> UNet:
    """U-Net (arXiv 1505.04597), small: 116,770 parameters, 99,287,040 MACs at 1x64x64.

    With width 64 and depth 4, the paper's 23 convolutional layers: 31,030,658 parameters.
    """
    return UNet(c_in, classes, width, depth)


# A detector with one head for all levels


class SharedHeadDetector(nn.Module):
    """A pyramid of three levels, and one head (a tower and two predictors) called on each."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(*conv_bn(3, 16, 3, 2), nn.ReLU(), *conv_bn(16, 32, 3, 2))
        sizes = [32, 64, 128, 256]
        self.stages = nn.ModuleList(
            nn.Sequential(nn.ReLU(), *conv_bn(low, high, 3, 2)) for low, high in pairwise(sizes)
        )
        self.lateral = nn.ModuleList(nn.Conv2d(size, width, 1) for size in sizes[1:])
        self.tower = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
        )
        self.classes = nn.Conv2d(width, classes, 3, padding=1)
        self.boxes = nn.Conv2d(width, 4, 3, padding=1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.stem(x)
        levels: list[Tensor] = []
        for stage, lateral in zip(self.stages, self.lateral, strict=True):
            x = stage(x)
            levels.append(lateral(x))
        for index in (1, 0):  # from coarse to fine
            coarse = F.interpolate(levels[index + 1], size=levels[index].shape[-2:])
            levels[index] = levels[index] + coarse
        towers = [self.tower(level) for level in levels]
        return {
            "classes": torch.cat([self.classes(tower).flatten(2) for tower in towers], dim=2),
            "boxes": torch.cat([self.boxes(tower).flatten(2) for tower in towers], dim=2),
        }


def shared_head_detector(classes: int = 20, width: int = 64) -> SharedHeadDetector:
    """FCOS-like (arXiv 1904.01355), small: 509,672 parameters, 51,896,320 MACs at 3x128x128."""
    return SharedHeadDetector(classes, width)


# One and three dimensions


class AudioSeparator(nn.Module):
    """A strided encoder, a mask from dilated separable convolutions, a transposed decoder."""

    def __init__(self, width: int, hidden: int, blocks: int) -> None:
        super().__init__()
        self.encoder = nn.Conv1d(1, width, 16, stride=8, bias=False)
        self.mask = nn.Sequential(
            nn.GroupNorm(1, width),
            *(self._block(width, hidden, 2**index) for index in range(blocks)),
            nn.Conv1d(width, width, 1),
            nn.Sigmoid(),
        )
        self.decoder = nn.ConvTranspose1d(width, 1, 16, stride=8, bias=False)

    @staticmethod
    def _block(width: int, hidden: int, dilation: int) -> nn.Module:
        return Residual(
            nn.Conv1d(width, hidden, 1),
            nn.PReLU(),
            nn.GroupNorm(1, hidden),
            nn.Conv1d(hidden, hidden, 3, padding=dilation, dilation=dilation, groups=hidden),
            nn.PReLU(),
            nn.GroupNorm(1, hidden),
            nn.Conv1d(hidden, width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        code = torch.relu(self.encoder(x))
        out: Tensor = self.decoder(code * self.mask(code))
        return out


def net1d() -> AudioSeparator:
    """Conv-TasNet (arXiv 1809.07454), small: 111,948 parameters, 106,645,248 MACs at 1x8000."""
    return AudioSeparator(width=64, hidden=128, blocks=6)


def net3d(classes: int = 10) -> nn.Sequential:
    """R(2+1)D (arXiv 1711.11248), small: 365,881 parameters, 1,046,227,328 MACs at 3x8x56x56.

    83 and 144 channels keep a factored pair at the parameters of a full kernel, as in the paper.
    A full 3x3x3 convolution and a depthwise one come last.
    """

    def layer(
        c_in: int,
        c_out: int,
        kernel: tuple[int, int, int],
        stride: tuple[int, int, int] = (1, 1, 1),
        groups: int = 1,
    ) -> tuple[nn.Module, nn.Module, nn.Module]:
        padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        conv = nn.Conv3d(c_in, c_out, kernel, stride, padding, groups=groups, bias=False)
        return conv, nn.BatchNorm3d(c_out), nn.ReLU()

    return nn.Sequential(
        *layer(3, 83, (1, 7, 7), stride=(1, 2, 2)),
        *layer(83, 64, (3, 1, 1)),
        Residual(*layer(64, 144, (1, 3, 3)), *layer(144, 64, (3, 1, 1))),
        *layer(64, 128, (3, 3, 3), stride=(2, 2, 2)),
        *layer(128, 128, (3, 3, 3), groups=128),
        nn.AdaptiveAvgPool3d(1),
        nn.Flatten(),
        nn.Linear(128, classes),
    )


# What trips counters up


def string_padding_net() -> nn.Sequential:
    """Padding given as a word (no paper): 9,162 parameters, 2,433,344 MACs at 3x32x32.

    fvcore has no handle for such convolutions: it counts the linear layer's 320 only.
    """
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding="same"),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding="same", dilation=2, groups=16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 4, stride=2, padding="valid"),
        nn.ReLU(),
        *pooled_classifier(32, 10),
    )


def weight_tied_net() -> nn.Sequential:
    """Two layers, one weight (no paper): 2,954 parameters, 3,391,648 MACs at 3x32x32.

    Shared as in tied embeddings (arXiv 1608.05859): used twice, stored once, and two biases.
    """
    first = nn.Conv2d(16, 16, 3, padding=1)
    second = nn.Conv2d(16, 16, 3, padding=1)
    second.weight = first.weight
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(),
        first,
        nn.ReLU(),
        nn.MaxPool2d(2),
        second,
        nn.ReLU(),
        *pooled_classifier(16, 10),
    )
