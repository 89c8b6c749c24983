"""The cost of one transposed convolution."""

from dataclasses import dataclass

from dscalc.core.conv import Conv, per_axis, span
from dscalc.errors import DscalcError
from dscalc.parse import Padding, Size
from dscalc.show import times


@dataclass(frozen=True, init=False)
class TransposedConv(Conv):
    """A transposed convolution, as ``torch.nn.ConvTranspose2d``.

    The output size is (input_size - 1) * stride - 2 * padding + dilation * (kernel_size - 1) +
    output_padding + 1 along each axis.

    Args:
        padding: elements cut off at each end of an axis; or ``"valid"``, none; or ``"same"``, as
            many as make the output ``input_size * stride``.
        output_padding: zeros added at the far end of an axis, fewer than its stride or dilation;
            ``"same"`` padding sets its own.

    Raises:
        DscalcError: as `Conv`; or ``output_padding`` is too large, or the output would be empty.
    """

    output_padding: tuple[int, ...] = ()

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        input_size: Size,
        stride: Size = 1,
        padding: Padding = "same",
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = False,
        batch_size: int = 1,
        output_padding: Size = 0,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, input_size, stride, "same", dilation, groups,
            bias, batch_size,
        )  # fmt: skip
        axes = len(self.kernel_size)
        added = per_axis("output_padding", output_padding, axes, least=0)
        spans = span(self.kernel_size, self.dilation)
        cut = (0,) * axes
        if padding == "same":  # 2 * cut - added is span - stride
            over = [reach - step for reach, step in zip(spans, self.stride, strict=True)]
            cut = tuple([max(0, -(-zeros // 2)) for zeros in over])
            added = tuple([2 * zeros - both for zeros, both in zip(cut, over, strict=True)])
        elif padding != "valid":
            cut = per_axis("padding", padding, axes, least=0)
        for zeros, step, gap in zip(added, self.stride, self.dilation, strict=True):
            if zeros < max(step, gap):
                continue
            if padding == "same":
                raise DscalcError(
                    f"torch cannot pad a {times(self.kernel_size)} kernel with stride "
                    f"{times(self.stride)} to the same size; give a padding, such as 0"
                )
            raise DscalcError(
                f"output_padding must be smaller than the stride or the dilation, got {zeros}"
            )
        output_size = tuple(
            (length - 1) * step - 2 * zeros + reach + more
            for length, step, zeros, reach, more in zip(
                self.input_size, self.stride, cut, spans, added, strict=True
            )
        )
        if output_size and min(output_size) < 1:
            raise DscalcError(f"padding {times(cut)} removes the whole output; use a smaller one")
        self.__dict__.update(padding=cut, output_padding=added, output_size=output_size)

    @property
    def positions(self) -> tuple[int, ...]:
        """The input size: each tap meets each position of the input, not of the output."""
        return self.input_size
