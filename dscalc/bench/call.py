"""Time a layer and its replacements from Python."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from dscalc.bench.measurement import Device, Dtype
from dscalc.bench.view import Benchmark, fields
from dscalc.core.blocks import REPLACEMENTS, SEPARABLE, STANDARD, Block
from dscalc.core.conv import Conv
from dscalc.core.describe import described
from dscalc.core.fields import Unit
from dscalc.core.row import Row, existing, layer_row
from dscalc.errors import DscalcError
from dscalc.inputs.grid import Grid, Values


def benchmark(
    in_channels: Values,
    out_channels: Values,
    kernel_size: Values,
    input_size: Values | None = None,
    *,
    blocks: Iterable[Block | str] | Block | str = SEPARABLE,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    threads: int | None = None,
    channels_last: bool = False,
    compile: bool = False,  # noqa: A002  # torch's name
    backward: bool = False,
    min_run_time: float = 1.0,
    unit: Unit = "macs",
    strict: bool | None = None,
    refuse: Callable[[str], object] | None = None,
    **options: Any,
) -> Benchmark:
    """Time a convolution and its replacements on this machine; this imports torch.

    The first reading of the rows times the layers.

    Args:
        in_channels, out_channels, kernel_size, input_size: as in `compare`.
        blocks: the replacements, such as ``["separable", "grouped:8"]``; ``"all"`` are all that
            exist for a layer. The steps of a single block are timed too.
        device: where to run.
        dtype: of weights and feature maps.
        threads: of torch on the CPU; by default as many as it uses.
        channels_last: store channels innermost.
        compile: run what ``torch.compile`` makes of each module.
        backward: time forward and backward together.
        min_run_time: minimum seconds to time each candidate.
        unit: of the counts in the report.
        strict: whether each block must exist for the only layer; by default unless ``blocks`` is
            ``"all"``.
        refuse: gets the reason if a layer cannot be timed; without it, that raises.
        options: ``stride`` to ``resolution_multiplier``, as in `compare`.

    Raises:
        DscalcError: a value is out of its range, or a layer cannot be timed.
    """
    from dscalc.bench.timing import Settings

    layers = Grid(in_channels, out_channels, kernel_size, input_size, **options)
    chosen = [each.along(layers.dims) for each in _chosen(blocks)]
    strict = blocks != "all" if strict is None else strict
    settings = Settings(device, dtype, threads, channels_last, compile, min_run_time, backward)
    block = STANDARD if len(chosen) > 1 else chosen[0]

    def name(row: Row) -> str:
        assert isinstance(row.layer, Conv)
        layer = described(row.layer, block, one_position=layers.one_position)
        return f"{row.block} of {layer}" if len(chosen) > 1 else layer

    report = Benchmark(
        "bench", block, fields(block, unit), (), unit=unit, name=name,
        count=layers.count * len(chosen), title=layers.in_words(block),
    )  # fmt: skip
    strict = strict and layers.count == 1
    report.rows = _Measured(_measured(report, layers, chosen, settings, refuse, strict=strict))
    return report


def _chosen(blocks: Iterable[Block | str] | Block | str) -> list[Block]:
    if blocks == "all":
        blocks = REPLACEMENTS
    each = [blocks] if isinstance(blocks, str | Block) else blocks
    found = [Block.parse(one) if isinstance(one, str) else one for one in each]
    if not found:
        raise DscalcError("blocks must have a value, got an empty list")
    return list(dict.fromkeys(found))


def _measured(
    report: Benchmark,
    layers: Iterable[Conv],
    blocks: list[Block],
    settings: Any,
    refuse: Callable[[str], object] | None,
    *,
    strict: bool,
) -> Iterator[Row]:
    """A row for each block of each layer; for each layer, fewest MACs first."""
    from dscalc.bench import timing

    def tell(rows: int, share: float) -> None:
        report.progress(rows * share)

    measured = False
    try:
        for conv in layers:
            try:
                if strict:  # a block that is asked for by name must exist
                    rows = [layer_row(conv, block) for block in blocks]
                else:
                    rows = list(existing([conv], blocks, report.left_out))
                if rows:
                    rows = timing.time_rows(rows, settings, partial(tell, len(rows)))
            except DscalcError as error:
                if refuse is None:
                    raise
                refuse(str(error))
                continue
            for row in sorted(rows, key=lambda row: row.replacement.cost.macs):
                measured = True
                yield row._replace(name=str(row.block) if len(blocks) > 1 else report.name(row))
    except KeyboardInterrupt:  # keep the rows so far
        if not measured:  # and a file of before, if there are none
            raise
        report.interrupted = True


class _Measured:
    """Rows that are made once, when first read."""

    def __init__(self, rows: Iterator[Row]) -> None:
        self._rest, self._made = rows, list[Row]()

    def __iter__(self) -> Iterator[Row]:
        yield from self._made
        for row in self._rest:
            self._made.append(row)
            yield row
