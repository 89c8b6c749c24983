"""Costs of operators: formulas of products, kinds of composites, and operators without MACs.

The formulas are dscalc's own. torch's FlopCounterMode counts the same run: formulas from its
registry would prove nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from dscalc.core.conv import Conv
from dscalc.core.transposed import TransposedConv

Shape = Sequence[int]

# ---- MACs of products: one function of shapes for each leaf operator. ----


def product_macs(left: Shape, _right: Shape, *_: Any, output: Shape) -> int:
    """The output elements, each a dot product as long as a row of the left factor."""
    return prod(output) * left[-1]


def added_product_macs(_added: Shape, left: Shape, right: Shape, *_: Any, output: Shape) -> int:
    """As `product_macs`; the added tensor costs no MACs, like a bias."""
    return product_macs(left, right, output=output)


def convolution_macs(
    features: Shape, weight: Shape, _bias: Shape | None, _stride: Shape, _padding: Shape,
    _dilation: Shape, transposed: bool, *_: Any, output: Shape,
) -> int:  # fmt: skip
    """(N, C, *sizes) with a kernel of (C', C'', *taps): each weight meets each output position.

    If the convolution is transposed, each weight meets each input position.
    """
    met = features if transposed else output
    return features[0] * prod(weight) * prod(met[2:])


def summed_products_macs(_added: Shape, left: Shape, right: Shape, *_: Any, output: Shape) -> int:
    """(B, N, K) with (B, K, M), summed over B."""
    return prod(left) * right[-1]


def grouped_product_macs(left: Shape, right: Shape, *_: Any, output: Shape) -> int:
    """Rows of (M, K) in groups, each with its (K, N) of (G, K, N); or (G, M, K) with (G, K, N).

    The groups may share the K of (M, K) and (K, N), or the N of (G, M, K) and (K, N): each element
    of a factor that is in groups then meets one group of the other.
    """
    rows = left[1:] if len(left) > len(right) else left
    return prod(rows) * right[-1]


def outer_product_macs(*_: Any, output: Shape) -> int:
    """One product for each element of the output."""
    return prod(output)


def kronecker_product_macs(*_: Any, output: Shape) -> int:
    """One product for each element of the output."""
    return prod(output)


def convolution_over_time_macs(_features: Shape, weight: Shape, *_: Any, output: Shape) -> int:
    """(T, N, C) with a kernel of (taps, C, C'): each weight meets each output position."""
    return prod(weight) * prod(output[:2])


def attention_macs(query: Shape, key: Shape, value: Shape, *_: Any, output: Shape) -> int:
    """(N, heads, L, E) with (N, heads, S, E) and (N, heads, S, E'): scores, and their sums.

    A mask saves nothing.
    """
    return prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def affine_grid_macs(theta: Shape, *_: Any, output: Shape) -> int:
    """Coordinates (N, *sizes, axes), each a dot product with a row of theta (N, axes, axes + 1)."""
    return prod(output) * theta[-1]


def weighted_bag_macs(
    table: Shape, indices: Shape, _offsets: Shape, _scaled: bool, _mode: int, _sparse: bool,
    weights: Shape | None = None, *_: Any, output: Shape,
) -> int:  # fmt: skip
    """Rows of a table, each times its weight; without weights a sum."""
    return prod(indices) * table[-1] if weights is not None else 0


_COUNTED_BY: dict[Callable[..., int], str] = {
    product_macs: "mm bmm mv dot vdot _int_mm _scaled_mm _weight_int8pack_mm",
    added_product_macs: "addmm addmm_ baddbmm baddbmm_ addmv addmv_ _addmm_activation",
    summed_products_macs: "addbmm addbmm_",
    grouped_product_macs: "_grouped_mm _scaled_grouped_mm",
    outer_product_macs: "addr addr_",
    kronecker_product_macs: "kron",
    convolution_macs: "convolution _convolution convolution_overrideable",
    convolution_over_time_macs: "conv_tbc",
    attention_macs: """
        _scaled_dot_product_flash_attention _scaled_dot_product_flash_attention_for_cpu
        _scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention
        _scaled_dot_product_fused_attention_overrideable""",
    affine_grid_macs: "affine_grid_generator",
    weighted_bag_macs: "_embedding_bag _embedding_bag_forward_only",
}
LEAVES = {
    f"aten::{name}": formula for formula, names in _COUNTED_BY.items() for name in names.split()
}
FACTORS = {  # which arguments are multiplied, by the formula
    product_macs: slice(2),
    convolution_macs: slice(2),
    grouped_product_macs: slice(2),
    added_product_macs: slice(1, 3),
    summed_products_macs: slice(1, 3),
    outer_product_macs: slice(1, 3),
    kronecker_product_macs: slice(2),
    affine_grid_macs: slice(1),
}

# ---- The kind of a row: its outermost composite. ----

KINDS = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "conv_tbc"), "conv"),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), "transposed"),
    **dict.fromkeys(("matmul", "inner", "tensordot", "chain_matmul"), "matmul"),
    **dict.fromkeys(("linalg_multi_dot", "linalg_vecdot", "linalg_matrix_power"), "matmul"),
    **dict.fromkeys(("lstm", "lstm_cell"), "lstm"),
    **dict.fromkeys(("gru", "gru_cell"), "gru"),
    **dict.fromkeys(("rnn_tanh", "rnn_relu", "rnn_tanh_cell", "rnn_relu_cell"), "rnn"),
    "linear": "linear",
    "bilinear": "bilinear",
    "einsum": "einsum",
    **dict.fromkeys(("scaled_dot_product_attention", "flex_attention"), "attention"),
    "affine_grid_generator": "affine_grid",
    "embedding_bag": "embedding_bag",
    **{
        name.removeprefix("aten::"): "attention"
        for name, formula in LEAVES.items()
        if formula is attention_macs
    },
}
RECURRENT = ("lstm", "gru", "rnn")

# ---- Operators without MACs, and why. torch tags views and pointwise operators itself. ----

_WITHOUT_MACS = {
    "makes a tensor": """
        _efficientzerotensor _sparse_coo_tensor_with_dims_and_tensors arange empty empty_like
        empty_permuted empty_strided eye full full_like linspace logspace new_empty
        new_empty_strided new_full new_ones new_zeros ones ones_like scalar_tensor tril_indices
        triu_indices zeros zeros_like fft_fftfreq fft_rfftfreq bartlett_window blackman_window
        hamming_window hann_window kaiser_window""",
    "draws random numbers": """
        bernoulli cauchy exponential geometric log_normal multinomial native_dropout normal
        normal_functional poisson rand rand_like randint randint_like randn randn_like random
        randperm rrelu_with_noise rrelu_with_noise_functional uniform _dirichlet_grad
        _sample_dirichlet _standard_gamma _standard_gamma_grad""",
    "moves or copies values": """
        _copy_from _lazy_clone _pack_padded_sequence _reshape_copy _stack _to_copy _to_dense
        _to_sparse _unsafe_view as_strided_scatter block_diag cat _chunk_cat channel_shuffle clone
        complex constant_pad_nd copy diag_embed diagonal_scatter fill flip im2col lift masked_fill
        masked_scatter pixel_shuffle pixel_unshuffle polar reflection_pad1d reflection_pad2d
        reflection_pad3d repeat repeat_interleave replication_pad1d replication_pad2d
        replication_pad3d resize resize_as roll rot90 select_scatter set slice_scatter stack
        to_padded_tensor tril triu unsafe_chunk unsafe_split unsafe_split_with_sizes zero
        view_as_complex view_as_real""",
    "reads or writes at an index": """
        _index_put_impl _unsafe_index _unsafe_index_put _unsafe_masked_index embedding
        embedding_renorm gather index index_copy index_fill index_put index_select masked_select
        nonzero nonzero_static put scatter take""",
    "compares, sorts or counts": """
        _aminmax _unique _unique2 allclose bincount bucketize cummax cummin equal histc isin
        kthvalue median mode nanmedian searchsorted sort topk unique_consecutive unique_dim
        unique_dim_consecutive torchvision::nms""",
    "adds up, or multiplies up": """
        _embedding_bag _embedding_bag_forward_only _unsafe_masked_index_put_accumulate col2im
        cumprod cumsum index_add index_reduce logcumsumexp scatter_add scatter_reduce
        segment_reduce trace unfold_backward amax amin all any argmax argmin max min mean nansum
        prod std std_mean sum var var_mean logsumexp norm linalg_vector_norm dist""",
    "pools": """
        _adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_max_pool2d adaptive_max_pool3d
        avg_pool2d avg_pool3d fractional_max_pool2d fractional_max_pool3d max_pool2d_with_indices
        max_pool3d_with_indices max_unpool2d max_unpool3d torchvision::roi_pool
        torchvision::ps_roi_pool""",
    "blends neighbours at fixed positions; no learned weights": """
        _upsample_bicubic2d_aa _upsample_bilinear2d_aa _upsample_lanczos2d_aa
        _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d
        grid_sampler_2d grid_sampler_3d upsample_bicubic2d upsample_bilinear2d upsample_linear1d
        upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_trilinear3d
        torchvision::roi_align torchvision::ps_roi_align""",
    "normalises: a scale and a shift for each element": """
        _batch_norm_no_update _batch_norm_with_update _batch_norm_with_update_functional
        _native_batch_norm_legit _native_batch_norm_legit_functional
        _native_batch_norm_legit_no_training _weight_norm_interface native_batch_norm
        native_group_norm native_layer_norm _fused_rms_norm renorm""",
    "rounds as a quantised model would, and may follow the range of its input": """
        _fake_quantize_learnable_per_channel_affine _fake_quantize_learnable_per_tensor_affine
        _fake_quantize_per_tensor_affine_cachemask_tensor_qparams _fused_moving_avg_obs_fq_helper
        _fused_moving_avg_obs_fq_helper_functional dequantize
        fake_quantize_per_channel_affine_cachemask fake_quantize_per_tensor_affine_cachemask
        quantize_per_channel quantize_per_tensor""",
    "a function of each element, or of a row of them": """
        _log_softmax _masked_softmax _prelu_kernel _safe_softmax _softmax copysign gelu glu
        hardswish heaviside huber_loss log_sigmoid_forward mish mse_loss smooth_l1_loss
        soft_margin_loss threshold xlogy binary_cross_entropy binary_cross_entropy_with_logits
        nll_loss_forward nll_loss2d_forward floor_divide eq ge gt le lt ne rsub _ctc_loss
        linalg_cross multi_margin_loss multilabel_margin_loss_forward""",
    "the same, for the shape where a tangent is zero, as under jvp": """
        prims::add prims::div prims::mul prims::sub""",
    "the same; torch 2.4 has no tag for it": """
        _conj_physical aminmax celu count_nonzero elu hardshrink hardsigmoid hardtanh leaky_relu
        rad2deg softplus softshrink""",
    "the gradient of one of these, as within a forward that differentiates": """
        _adaptive_avg_pool2d_backward _fused_rms_norm_backward _log_softmax_backward_data
        _prelu_kernel_backward _softmax_backward_data avg_pool2d_backward diagonal_backward
        elu_backward embedding_dense_backward glu_backward hardsigmoid_backward hardswish_backward
        hardtanh_backward huber_loss_backward leaky_relu_backward log_sigmoid_backward
        max_pool2d_with_indices_backward mish_backward mse_loss_backward native_batch_norm_backward
        native_group_norm_backward native_layer_norm_backward select_backward slice_backward
        smooth_l1_loss_backward softplus_backward upsample_bilinear2d_backward
        upsample_nearest2d_backward""",
    "tells something of a tensor": """
        _assert_async _assert_scalar _assert_tensor_metadata _functional_assert_async
        _functional_assert_scalar _has_same_storage_numel _is_all_true _is_any_true
        _linalg_check_errors _local_scalar_dense _nnz _print is_pinned is_same_size is_set_to
        prim::device prim::layout torchvision::_cuda_version profiler::_record_function_enter_new
        profiler::_record_function_exit""",
}
NO_MACS = {
    name if "::" in name else f"aten::{name}": reason
    for reason, names in _WITHOUT_MACS.items()
    for name in names.split()
}
_TAGS = {
    getattr(torch.Tag, name)
    for name in ("pointwise", "reduction", "inplace_view", "view_copy")
    if hasattr(torch.Tag, name)  # torch 2.4 has no "reduction"
}


def has_no_macs(operator: Any) -> bool:
    """Whether an operator is a view, pointwise, a reduction, or one of `NO_MACS`.

    The tags of operators that are not torch's prove nothing.
    """
    if not name_of(operator).startswith("aten::"):
        return is_listed(operator)
    return operator.is_view or not _TAGS.isdisjoint(operator.tags) or is_listed(operator)


def is_listed(operator: Any) -> bool:
    """Whether an operator is one of `NO_MACS`, in place or not."""
    name = name_of(operator)
    return name in NO_MACS or name.removesuffix("_") in NO_MACS


# ---- What may write over an operand: each element of its result takes one of each operand. ----

_POINTWISE = {
    "of one operand": """
        abs absolute acos acosh angle arccos arccosh arcsin arcsinh arctan arctanh asin asinh atan
        atanh bitwise_not ceil clamp clamp_max clamp_min clip conj_physical cos cosh deg2rad
        digamma erf erfc erfinv exp exp2 expm1 fix floor frac i0 isfinite isinf isnan isneginf
        isposinf lgamma log log10 log1p log2 logical_not logit nan_to_num neg negative positive
        rad2deg reciprocal round rsqrt sgn sign signbit sin sinc sinh sqrt square tan trunc""",
    "activations": """
        celu elu gelu hardshrink hardsigmoid hardswish hardtanh leaky_relu log_sigmoid mish prelu
        relu relu6 rrelu selu sigmoid silu softplus softshrink tanh threshold""",
    "of several operands, broadcast": """
        __and__ __lshift__ __or__ __rshift__ __xor__ add addcdiv addcmul arctan2 atan2 bitwise_and
        bitwise_left_shift bitwise_or bitwise_right_shift bitwise_xor copysign div divide eq
        float_power floor_divide fmax fmin fmod gcd ge greater greater_equal gt heaviside hypot lcm
        ldexp le lerp less less_equal logaddexp logaddexp2 logical_and logical_or logical_xor lt
        masked_fill max.other maximum min.other minimum mul multiply ne nextafter not_equal pow
        remainder rsub sub subtract true_divide where xlogy""",
}
POINTWISE = {f"aten::{name}" for names in _POINTWISE.values() for name in names.split()}
_BATCH_NORMS = {"aten::batch_norm", "aten::native_batch_norm"}


def writes_over(operator: Any, args: Any) -> bool:
    """Whether it may: pointwise ones by a list of dscalc's own, and batch norms in evaluation.

    torch's tag lacks some (multiply, prelu, hardswish), and has others that move elements (clone).
    """
    name = name_of(operator)
    if name in _BATCH_NORMS:
        return not args[5]  # in training it takes the mean of all elements first
    return name in POINTWISE or operator.name() in POINTWISE


# ---- Operators, as torch hands them over. ----


def name_of(operator: Any) -> str:
    """The name of an operator without the overload: "aten::conv2d"."""
    name: str = operator.name()
    return name.partition(".")[0]


def tensors_of(values: Any) -> Iterator[Tensor]:
    """Those among the arguments or results of an operator, which stand in lists too."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors_of(value)


def convolution_of(
    features: Shape, weight: Shape, bias: Shape | None, stride: Shape, padding: Shape,
    dilation: Shape, transposed: bool, output_padding: Shape, groups: int, *_: Any, output: Shape,
    asked: tuple[Any, Shape] | None,
) -> Conv:  # fmt: skip
    """The `Conv` of a call of ``aten::convolution``.

    ``asked`` is the padding if it was given as a word, with the shape of the input before padding.
    """
    axes = len(weight) - 2

    def per_axis(sizes: Shape) -> tuple[int, ...]:
        return tuple(sizes) * axes if len(sizes) == 1 else tuple(sizes)

    fields = {
        "in_channels": features[1],
        "out_channels": output[1],
        "kernel_size": tuple(weight[2:]),
        # The size before padding, if the padding was given as a word.
        "input_size": tuple(asked[1][-axes:] if asked else features[2:]),
        "output_size": tuple(output[2:]),
        "stride": per_axis(stride),
        "padding": asked[0] if asked else per_axis(padding),
        "dilation": per_axis(dilation),
        "groups": groups,
        "bias": bias is not None,
        "batch_size": features[0],
    }
    if transposed:
        return TransposedConv.unchecked(**fields, output_padding=per_axis(output_padding))
    return Conv.unchecked(**fields)


def linear_of(args: Any) -> Conv | None:
    """The `Conv` of ``linear(input, weight, bias)``; None if its weight is no matrix, or empty."""
    features, weight, *bias = args
    if weight.dim() != 2 or not weight.numel():
        return None
    has_bias = bool(bias) and bias[0] is not None
    conv = Conv(weight.shape[1], weight.shape[0], (), (), bias=has_bias)
    return conv.like(batch_size=prod(features.shape[:-1]))
