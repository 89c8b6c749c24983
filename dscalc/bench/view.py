"""The fields, tables and sentences of a benchmark."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache, partial
from operator import attrgetter
from pathlib import Path
from typing import Any

from dscalc.bench.measurement import NOISY, Measurement, Speedup
from dscalc.core.blocks import STANDARD, Block
from dscalc.core.fields import (
    Fields,
    Group,
    Unit,
    alone,
    attributes,
    compared,
    field_name,
    group,
)
from dscalc.core.roofline import intensity, least_bytes
from dscalc.core.row import Row
from dscalc.report.layer_tables import parts
from dscalc.report.report import Report
from dscalc.report.sentences import factor, short
from dscalc.report.sheet import Column, Counts, Sheet, name, varying
from dscalc.show import amount, for_who_asks

_NEAR_A_LIMIT = 2  # times the least time; up to here the limit explains the time


def measurement(row: Row) -> Measurement:
    """The measurement of a row."""
    found: Measurement = row.extra
    return found


@dataclass(eq=False, repr=False)
class Benchmark(Report):
    """A report of timed layers and blocks, one per row.

    Args:
        interrupted: whether it was stopped before all were timed.
    """

    interrupted: bool = False

    def table(self) -> Sheet:
        """The report as a sheet for people."""
        rows = list(self.rows)
        if not rows:
            return Sheet(self.title, notes=self.notes)
        single = len(rows) == 1 and self.block != STANDARD
        return _one_layer(self, rows[0]) if single else _several(self, rows)

    def draw(self, path: Path, kind: str) -> None:
        """Draw the plot; ``kind`` is png, svg or pdf."""
        from dscalc.bench.picture import draw

        draw(self, path, kind)


# ---- Fields. ----


@lru_cache
def fields(block: Block, unit: Unit = "macs") -> Fields:
    """The fields of a row; `STANDARD` stands for several blocks, one per row."""
    name = "" if block == STANDARD else block.name
    costs = compared(block, name, unit, lambda row: measurement(row).bytes_per_element)
    return Fields(*costs, *_times(name, block.step_names), *_decided(name))


def _times(block: str, steps: Sequence[str]) -> Iterator[Group]:
    """Fields: the times of the layer, each step and the block; the rates of layer and block."""
    yield _time("standard", "as_is")
    yield from map(_time, steps)
    yield _time(block, "rewritten")
    for part, side in (("standard", "as_is"), (block, "rewritten")):
        doc, field = f"achieved by {part or 'the block'}", field_name(part, "gflops_per_s")
        yield alone(field, "GFLOP/s", float, doc, partial(_rate, side), undecided=_undecided_row)


def _time(part: str, side: str = "") -> Group:
    """Fields: the time of a side, or of the step of that name."""
    what = part or "the block"

    def read(row: Row) -> tuple[Any, ...]:
        found = measurement(row)
        return tuple(getattr(found, side) if side else found.steps[part])

    named = partial(field_name, part)
    faults = "minor page faults per run, near 0 with a warm allocator, of"
    times = group(
        read,
        (named("time_us"), "us", float, f"median time of {what}"),
        (named("time_iqr_us"), "us", float, f"interquartile range of the times of {what}"),
        (named("page_faults"), "faults", float, f"{faults} {what}"),
    )
    *in_us, page_faults = times.fields
    in_us = [each._replace(undecided=_undecided_row) for each in in_us]
    return times._replace(fields=(*in_us, page_faults))


def _rate(side: str, row: Row) -> float:
    found = measurement(row)
    return found.environment.gflops_per_s(getattr(found, side), getattr(row, side).cost)


def _decided(block: str) -> Iterator[Group]:
    """Fields: the speed-up, the verdict, the limits and the conditions."""
    what = block or "the block"

    def speedup(row: Row) -> tuple[float | None, ...]:
        found = measurement(row).speedup
        return found.factor, found.low, found.high

    yield group(
        speedup,
        ("speedup", "ratio", float, f"time, standard / {what}, if decided"),
        ("speedup_low", "ratio", float, "the lower end of its 99% interval"),
        ("speedup_high", "ratio", float, "the upper end of its 99% interval"),
        undecided=_undecided_row,
    )
    doc = f"{what} is faster, slower, or not decided"
    yield alone("verdict", "", str, doc, attrgetter("extra.speedup.verdict"))
    doc = "greatest speed-up that MACs and bytes allow here: time of standard / least time"
    yield alone("speedup_limit", "ratio", float, doc, _most_speedup, undecided=_undecided_row)
    yield group(
        lambda row: tuple(measurement(row).limits),
        (
            "peak_gflops_per_s",
            "GFLOP/s",
            float,
            "highest rate here, of a matrix product or of what is measured",
        ),
        ("bandwidth_gb_per_s", "GB/s", float, "rate of copying memory here"),
    )
    doc = "whether an interquartile range is over 10% of its median"
    yield alone("noisy", "", bool, doc, attrgetter("extra.noisy"))
    yield attributes(
        "extra.environment.",
        ("device", str, "type of device that it ran on"),
        ("device_name", str, "name of that device"),
        ("torch_version", str, "version of torch"),
        ("threads", int, "threads of torch on the CPU"),
        ("dtype", str, "type of weights and feature maps"),
        ("channels_last", bool, "whether channels are stored innermost"),
        ("compile", bool, "whether torch.compile compiled it"),
        ("backward", bool, "whether a run is forward and backward together"),
    )


def _most_speedup(row: Row) -> float:
    return measurement(row).most_speedup(row.replacement.cost)


def _longer() -> str:
    return f"measure longer with a larger {for_who_asks('--min-run-time', 'min_run_time')}"


def _undecided_row(row: Row) -> str:
    speedup = measurement(row).speedup
    if speedup.decided:
        return ""
    if speedup.too_close:
        return "it is too close to decide which is faster: another run may say otherwise"
    return f"it is not decided which is faster; {_longer()}"


# ---- Tables. ----


def _one_layer(report: Report, row: Row) -> Sheet:
    """The sheet of one layer, with a line per part."""
    found, counts = measurement(row), Counts(report.unit)
    element, rate = found.bytes_per_element, found.environment.gflops_per_s
    times = [found.as_is, *found.steps.values(), found.rewritten]
    *timed, whole = zip(parts(row), times, strict=True)
    columns = [
        Column("", lambda each: each[0].name, role="name"),
        Column("time, us", lambda each: f"{each[1].time_us:,.1f}"),
        Column("IQR, us", lambda each: f"{each[1].time_iqr_us:,.1f}", rank=4),
        Column(counts.label, lambda each: counts.text(each[0].cost.macs)),
        Column("GFLOP/s", lambda each: f"{rate(each[1], each[0].cost):,.1f}", rank=3),
        Column("least bytes", lambda each: f"{least_bytes(each[0].cost, element):,}", rank=2),
        Column("FLOP/byte", lambda each: f"{float(intensity(each[0].cost, element)):,.1f}", rank=1),
    ]
    notes = [
        *measurement_sentences(row),
        _measured_on(row),
        "GFLOP/s at 2 FLOPs per MAC; least bytes: inputs, weights and outputs moved once each",
    ]
    return Sheet.of(row.name or "", columns, timed, notes, whole)


def _several(report: Report, rows: Sequence[Row]) -> Sheet:
    """The sheet of a grid, of several blocks, or of both."""
    counts, several = Counts(report.unit), report.block == STANDARD
    layers = len({row.layer for row in rows}) > 1
    block = "block" if several else report.replacement.name
    title, sizes = varying(report.title, rows, selected=bool(report.selected))
    label, first = counts.label, rows[0]

    def as_is(row: Row) -> str:
        return f"{measurement(row).as_is.time_us:,.1f}"

    columns = [
        *([name("block")] if several else []),
        *sizes,
        *([Column("standard, us", as_is, rank=3)] if layers else []),
        Column(
            f"{block if layers else 'time'}, us",
            lambda row: f"{measurement(row).rewritten.time_us:,.1f}",
            rank=4,
        ),
        counts.rewritten(label, rank=1),
        Column(
            f"fewer {label}",
            lambda row: factor(1 / row.mac_ratio) if row.mac_ratio else "",
            rank=5,
            legend=f"fewer {label}: standard / {block}",
        ),
        Column(
            "time",
            lambda row: decided(measurement(row).speedup),
            legend="time: compared with standard, with its interval",
        ),
        Column(
            "at most",
            lambda row: factor(Fraction(_most_speedup(row))),
            rank=2,
            legend="at most: the greatest speed-up that MACs and bytes allow on this machine",
        ),
    ]
    sheet = Sheet.of(title, columns, rows, [*report.remarks, _measured_on(first)])
    if layers:
        return sheet
    standard = ["standard", *(column.cell(first) for column in sizes), as_is(first)]
    standard += [counts.text(first.as_is.cost.macs), "", "", ""]
    return replace(sheet, result=standard)


# ---- Sentences. ----


def _measured_on(row: Row) -> str:
    here = measurement(row).environment
    layout = ", channels last" if here.channels_last else ""
    compiled = ", compiled" if here.compile else ""
    passes = "forward and backward together" if here.backward else "forward"
    return (
        f"median and interquartile range (IQR) of {passes} on {here.machine}{layout}{compiled}, "
        f"torch {here.torch_version}; the factor is the median of paired turns, with the 99% "
        "interval of the sign test"
    )


def measurement_sentences(row: Row) -> Iterator[str]:
    """A measurement in words, such as "8.84x fewer MACs, 6.8x faster (6.7 to 6.9)".

    Then how it fits the machine's limits, and reasons to doubt it.
    """
    times = measurement(row)
    ratio = row.mac_ratio
    assert ratio is not None
    if short(max(ratio, 1 / ratio)) == "1":  # the same to three digits
        macs, surprise = "about as many MACs", ""
    elif ratio < 1:
        macs, surprise = f"{short(1 / ratio)}x fewer MACs", "slower"
    else:
        macs, surprise = f"{short(ratio)}x more MACs", "faster"
    but = ", but" if times.speedup.verdict == surprise else ","
    passes = " forward and backward" if times.environment.backward else ""
    yield f"{macs}{but} {decided(times.speedup)}{passes}"
    if not times.speedup.decided:
        yield _undecided(times.speedup)
    elif not times.noisy and (limited := _limited(row, times)):
        yield limited  # else noise may explain it
    for what, time in (("standard", times.as_is), (str(row.block), times.rewritten)):
        if time.faults_matter:
            yield (
                f"each run of {what} makes {time.page_faults:,.0f} page faults: part of its time "
                "goes to getting memory from the system"
            )
    if times.noisy:
        spread = max(time.time_iqr_us / time.time_us for time in (times.as_is, times.rewritten))
        yield (
            f"noisy: the interquartile range is {short(100 * spread)}% of the median time (more "
            f"than {NOISY:.0%}); measure again on a quiet machine"
        )


def decided(speedup: Speedup) -> str:
    """The verdict with its factor and interval, or that it is not decided."""
    if not speedup.decided:
        return speedup.verdict
    sign = 1 if speedup.verdict == "faster" else -1
    assert speedup.low is not None
    assert speedup.high is not None
    low, high = map(_rough, sorted((speedup.low**sign, speedup.high**sign)))
    middle = _rough(speedup.median**sign)
    interval = "" if low == middle == high else f" ({low} to {high})"
    return f"{middle}x {speedup.verdict}{interval}"


def _rough(ratio: float) -> str:
    """Two significant digits: another run may have another third one."""
    return short(float(f"{ratio:.2g}"))


def _undecided(speedup: Speedup) -> str:
    """A sentence on a speed-up that is not decided."""
    longer = _longer()
    if speedup.low is None or speedup.high is None:
        return f"too few undisturbed turns to decide: {longer}, or on a quiet machine"
    between = f"standard takes {short(speedup.low)}x to {short(speedup.high)}x the time"
    if speedup.too_close:
        return f"{between}: too close: another run may say otherwise"
    return f"{between}: {longer}"


def _limited(row: Row, times: Measurement) -> str:
    """How the time fits the least that MACs and bytes take on this machine."""
    costs, element = (row.as_is.cost, row.replacement.cost), times.bytes_per_element
    before, after = (least_bytes(cost, element) for cost in costs)
    flops = [short(intensity(cost, element)) for cost in costs]
    least, taken = times.least_us(costs[1]), times.rewritten.time_us
    if least > taken:  # impossible; the machine was busier when its limits were measured
        return ""
    by_memory = times.limits.is_memory(2 * costs[1].macs, after)
    what = "memory" if by_memory else "arithmetic"
    fits = "consistent with" if taken <= _NEAR_A_LIMIT * least else "not explained by"
    return (
        f"{fits} a limit set by {what}: {row.block} moves {amount(after)} instead of "
        f"{amount(before)} and does {flops[1]} FLOP per byte instead of {flops[0]}; at the "
        f"{short(times.limits.peak_gflops_per_s)} GFLOP/s and "
        f"{short(times.limits.bandwidth_gb_per_s)} GB/s measured here it takes at least "
        f"{least:,.1f} us, so it is at most {short(times.most_speedup(costs[1]))}x faster "
        "on this machine"
    )
