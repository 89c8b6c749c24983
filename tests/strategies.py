"""Random layers, small enough to be counted one multiplication at a time."""

from math import gcd

from hypothesis import strategies as st

from dscalc import Block, Conv


def sizes(dims, least, most):
    """One whole number per axis, or one for all of them."""
    lengths = st.integers(least, most)
    return st.one_of(lengths, st.tuples(*[lengths] * dims))


def per_axis(size, dims):
    return (size,) * dims if isinstance(size, int) else size


@st.composite
def geometries(draw, dims=None, paddings=("same", "valid", "size"), most_stride=3):
    """The sizes of a convolution whose kernel fits its padded map, as arguments of `Conv`."""
    dims = dims or draw(st.integers(1, 3))
    most = {1: 5, 2: 4, 3: 3}[dims]
    kernel_size, dilation = draw(sizes(dims, 1, most)), draw(sizes(dims, 1, 3))
    padding = draw(st.sampled_from(paddings))
    if padding == "size":
        padding = draw(sizes(dims, 0, 2))
    input_size = []
    for axis in range(dims):
        reach = per_axis(dilation, dims)[axis] * (per_axis(kernel_size, dims)[axis] - 1) + 1
        if padding == "same":
            least = 1
        elif padding == "valid":
            least = reach
        else:
            least = max(1, reach - 2 * per_axis(padding, dims)[axis])
        input_size.append(draw(st.integers(least, least + most)))
    return {
        "kernel_size": kernel_size,
        "input_size": tuple(input_size),
        "stride": draw(sizes(dims, 1, most_stride)),
        "padding": padding,
        "dilation": dilation,
    }


@st.composite
def convolutions(draw, dims=None, **options):
    """Arguments of `Conv`."""
    in_channels, out_channels = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    shared = gcd(in_channels, out_channels)
    return {
        "in_channels": in_channels,
        "out_channels": out_channels,
        **draw(geometries(dims, **options)),
        "groups": draw(st.sampled_from([n for n in range(1, shared + 1) if shared % n == 0])),
        "bias": draw(st.booleans()),
        "batch_size": draw(st.integers(1, 3)),
    }


@st.composite
def rewrites(draw, **options):
    """A convolution, and a block to put in its place."""
    bias = draw(st.sampled_from([(), (("depthwise", False),), (("depthwise", True),)]))
    block = Block("separable", (draw(st.integers(1, 3)),), bias)
    return Conv(**draw(convolutions(**options))), block
