"""What people read of a network, of a model, and of several of them."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction

from dscalc.core.blocks import STANDARD
from dscalc.core.fields import UNITS
from dscalc.core.kinds import CONVOLUTION_KINDS
from dscalc.core.peaks import Footprint
from dscalc.core.row import Row
from dscalc.report.report import Report
from dscalc.report.sentences import (
    DIFFERENT,
    PENDING,
    SAME,
    SHORT_UNIT,
    bar,
    full,
    in_bytes,
    percent_in_column,
    share,
    times_fewer,
)
from dscalc.report.sheet import (
    LAST,
    LATE,
    Cell,
    Column,
    Counts,
    Number,
    Sheet,
    channels,
    params,
    ratio,
    with_asked,
)
from dscalc.report.tree import (
    TableLine,
    Tree,
    flat_line,
    folded_list,
    is_seen,
    least_params,
)
from dscalc.show import for_who_asks, plural, printable, times

_LONGEST_CLASS = 16  # of a class name, once a table is narrow
_MOST_KINDS = 4  # that a sentence names
_MOST_WITHOUT = 3  # the same, of what has no MACs
_LAYERS_AGREE = f"{SAME} fvcore counts exactly these MACs on real modules, torch these params"
_MODELS_AGREE = f"{SAME} torch's FlopCounterMode counts exactly this"


def sheet(report: Report) -> Sheet:
    """What people read of a report of a network or a model, or of several."""
    rows = list(report.rows)
    if report.total is None:
        return _totals_sheet(report, rows) if rows else Sheet(report.title, notes=report.notes)
    lines, summed = _table_lines(report, rows)
    kind = report.classes.get("", "")
    whole = TableLine("total", "total", 0, kind, [report.total], is_module=True)
    title = f"{report.title}{report.at}"
    if report.selected:
        title += f": {len(lines):,} of {_number_of_rows(report, lines):,} rows{report.selected}"
    columns = _columns(report, lines, whole)
    return Sheet.of(
        title, with_asked(columns, report.asked, _row_of), lines,
        list(_sentences(report, summed=bool(summed))), whole,
        lead=_lead(report), unseen=(summed, _hidden(report, lines)), paths=True,
        flat=bool(report.selected), names=[line.path for line in lines],
        modules=[number for number, line in enumerate(lines) if line.has_parts],
    )  # fmt: skip


# ---- Lines. ----


def _table_lines(report: Report, rows: Sequence[Row]) -> tuple[list[TableLine], str]:
    """The lines of a table, and in words that some of them are sums."""
    everything = _everything(report)
    least = least_params(everything)
    if report.selected:
        chosen = len(rows) < len(everything)  # else what has no MACs is left out as always
        return [
            flat_line(row, is_module=row.kind == report.classes.get(row.name or ""))
            for row in rows
            if chosen or is_seen(row, least)
        ], ""
    if report.command == "network":
        return folded_list(row for row in rows if is_seen(row, least)), ""
    tree = Tree(everything, report.classes, fold=report.depth != 0)
    depth = tree.fitting_depth() if report.depth is None else report.depth or None
    lines = tree.lines(depth)
    sums = any(line.is_module and not line.has_parts for line in lines)
    if depth is None or depth >= tree.deepest or not sums:
        return lines, ""
    operators = sum(is_seen(row, 0) for row in everything)
    each = "--depth all shows each, --sort macs the costliest"
    return lines, (
        f"{operators:,} {plural('operator', operators)} in {len(lines):,} "
        f"{plural('row', len(lines))}; {for_who_asks(each, 'report.rows has each')}"
    )


def _everything(report: Report) -> Sequence[Row]:
    """All rows, where those of a report are a selection of them, or sums."""
    return list(report.rows) if report.parts is None else report.parts


def _number_of_rows(report: Report, lines: Sequence[TableLine]) -> int:
    """How many rows there are: those that are seen without options, or all if others are shown."""
    everything = _everything(report)
    least = least_params(everything)
    if all(is_seen(line.row, least) for line in lines):
        return sum(is_seen(row, least) for row in everything)
    return len(everything)


# ---- Columns. ----


def _columns(report: Report, lines: Sequence[TableLine], whole: TableLine) -> list[Column]:
    """The columns of lines; those of the replacement too, if there is one."""
    counts = Counts(report.unit)
    instead = report.block is not None
    shares = [line.row.share or Fraction(0) for line in lines if not line.has_parts]
    most = max(shares, default=Fraction(0))

    def to_scale(line: TableLine) -> str:
        if line.has_parts or line is whole or not line.row.share:
            return ""
        return bar(line.row.share / most)

    columns = [
        Column(
            "layer", lambda line: f"{'  ' * line.indent}{line.name}", role="name",
            fields=("name",),
        ),
        Column(
            "kind", lambda line: line.kind, LATE, role="kind", narrow=(3, _short_kind),
            fields=("kind",),
        ),
        _of_line(Column("channels", channels, 5 if instead else 4)),
        _of_line(
            Column(
                "output", lambda row: times(row.layer.output_size), 4 if instead else 2,
                fields=("output_size",),
            )
        ),
        _of_line(counts.as_is()),
        _of_line(params()),
        Column(
            "share", lambda line: "" if line.row.unknown else share(line.row.share),
            LAST if instead else 0, fields=("share",),
        ),
        *map(_of_line, _training_columns(counts) if whole.row.training else ()),
    ]  # fmt: skip
    asked = {each.name for each in report.asked}
    columns += [_of_line(column) for column in _memory_columns() if asked & {*column.fields}]
    if instead:
        return [*columns, *_replacement_columns(report, counts)]
    return [*columns, Column(f"0 to {share(most)}" if most else "", to_scale, 1, role="bar")]


def _memory_columns() -> list[Column]:
    """What weights and activations take, which give way from the last."""

    def column(head: str, field: str, rank: int) -> Column:
        def cell(row: Row) -> str:
            number = getattr(row.memory, field) if row.memory else None
            return "" if number is None else in_bytes(number)

        return Column(head, cell, rank, fields=(field,))

    return [
        column("weights", "weight_bytes", 4),
        column("peak", "peak_bytes", 3),
        column("planned", "least_peak_bytes", 2),
    ]


def _training_columns(counts: Counts) -> list[Column]:
    """What a step of training costs; that of a row is not known if both modes run it otherwise."""

    def backward(row: Row) -> Cell:
        macs = row.training and row.training.backward_macs
        return "not known" if macs is None else counts.number(macs)

    def saved(row: Row) -> Cell:
        size = row.training and row.training.saved_bytes
        return "not known" if size is None else in_bytes(size)

    unit = counts.label.lower()
    return [
        Column("backward", backward, LATE + 1, fields=(f"backward_{unit}",)),
        Column("saved", saved, LATE, fields=("saved_bytes",)),
    ]


def _replacement_columns(report: Report, counts: Counts) -> list[Column]:
    """What lines cost with the block; nothing stands where it replaces nothing."""
    block, macs = report.replacement.name, counts.label.lower()

    def where_replaced(cell: Callable[[Row], Cell]) -> Callable[[TableLine], Cell]:
        def read(line: TableLine) -> Cell:
            row = line.row
            if row.unknown:
                return ""
            return cell(row) if row.replacement.cost != row.as_is.cost else "-"

        return read

    def why_kept(line: TableLine) -> str:
        row = line.row
        same = row.replacement.cost == row.as_is.cost
        return row.kept if same and not line.is_module else ""

    return [
        Column(
            block, where_replaced(lambda row: counts.number(row.replacement.cost.macs)), LATE + 1,
            fields=(f"{block}_{macs}",),
        ),
        Column(
            "ratio", where_replaced(lambda row: percent_in_column(row.mac_ratio)),
            fields=("mac_ratio",),
        ),
        Column(
            f"{block} params", where_replaced(lambda row: Number(row.replacement.cost.params)), 1,
            needs=block, fields=(f"{block}_params",),
        ),
        Column("kept", why_kept, 2, fields=("kept",)),
    ]  # fmt: skip


def _row_of(line: TableLine) -> Row:
    return line.row


def _of_line(column: Column) -> Column:
    return column._replace(cell=lambda line: column.cell(line.row))


def _short_kind(line: TableLine) -> str:
    if not line.is_module or len(line.kind) <= _LONGEST_CLASS:
        return line.kind
    return f"{line.kind[: _LONGEST_CLASS - 1]}{PENDING}"


# ---- Sentences. ----


def _lead(report: Report) -> list[str]:
    """What it costs; and with the block, if there is one."""
    whole = report.whole
    (label, scale), cost = UNITS[report.unit], whole.as_is.cost
    macs, held = full(cost.macs * scale, label), full(cost.params, "params")
    if report.command == "model" and whole.trainable_params not in (None, cost.params):
        held += f", {whole.trainable_params:,} trainable"
    if whole.unknown:
        first, *others = whole.unknown
        more = f" and {len(others):,} more" if others else ""
        return [f"at least {macs}, {held}: no formula for {first}{more}"]
    as_is = f"{macs}, {held}; {SHORT_UNIT[report.unit]}"
    if report.block is None:
        return [as_is]
    block, after = report.replacement.name, whole.replacement.cost
    if after == cost:
        why = "there is no convolution to rewrite"
        if any(row.kept == "excluded" for row in _everything(report)):
            globs = for_who_asks("--only and --except", "only and exclude")
            why = f"{globs} leave nothing to rewrite"
        elif report.block == STANDARD:
            why = "every row is already plain"
        return [as_is, f"as {block}: the same; {why}"]
    return [
        f"{full(before, noun)}, as {block} {full(now)}"
        f"{f': {times_fewer(Fraction(now, before))}' if before else ''}"
        for before, now, noun in (
            (cost.macs * scale, after.macs * scale, label),
            (cost.params, after.params, "params"),
        )
    ]


def _sentences(report: Report, *, summed: bool) -> Iterator[str]:
    """What the reader must know, where the MACs are or what is kept, and who counts the same."""
    yield from (f"note: {note}" for note in report.notes)
    whole = report.whole
    if whole.rewritten:
        same = whole.rewritten.cost == whole.as_is.cost  # then the lead has the unit
        said = [_kept(report), "" if same else SHORT_UNIT[report.unit]]
        if any(said):
            yield "; ".join(filter(None, said))
    elif summed:  # then the table hides what kinds there are
        yield from _by_kind(report)
    if whole.memory and report.block is None:
        yield _memory(whole.memory)
    yield from _counters_agree(report)
    yield from _training_step(report)


def _training_step(report: Report) -> Iterator[str]:
    """What a step of training costs, and who counts the same; if that is asked."""
    whole = report.whole
    if whole.training is None:
        return
    step, (label, scale) = whole.training, UNITS[report.unit]
    assert step.macs is not None
    assert step.backward_macs is not None
    saved = "" if step.saved_bytes is None else f"; {in_bytes(step.saved_bytes)} saved for it"
    mark, proof = {
        "exact": (f"{SAME} ", ": autograd, the formula and torch agree"),
        "mismatch": (f"{DIFFERENT} ", ": torch counts otherwise"),
    }.get(step.crosscheck, ("", ""))
    yield (
        f"{mark}training step: {full(step.macs * scale, label)}, {step.backward_macs * scale:,} of "
        f"them backward{proof}{saved}"
    )


def _memory(footprint: Footprint) -> str:
    """What weights take, and activations: in torch, where that is, and in a plan."""
    run, peak = footprint.run, footprint.peak
    at = f" at {run.bits} bits" if run.bits else ""
    memory = f"memory{at}: weights {in_bytes(footprint.weight_bytes)}; activation peak"
    if peak is None:
        return f"{memory} not known: {run.unknown}"
    planned = in_bytes(footprint.least_peak_bytes or 0)
    where = printable(peak.path) or peak.operator
    return f"{memory} {in_bytes(peak.held)} in torch ({where}), {planned} planned"


def _by_kind(report: Report) -> Iterator[str]:
    """Which kinds of operators have the MACs, if there are several."""
    macs = Counter[str]()
    for row in _everything(report):
        macs[row.kind] += row.as_is.cost.macs
    whole = macs.total() or 1
    parts = [
        f"{kind} {share(Fraction(held, whole))}"
        for kind, held in macs.most_common(_MOST_KINDS)
        if Fraction(held, whole) >= Fraction(5, 10_000)
    ]
    if len(parts) > 1:
        yield f"{UNITS[report.unit][0]} by kind: {', '.join(parts)}"


def _kept(report: Report) -> str:
    """Which convolutions are not rewritten, by the reason, the commonest first."""
    if report.command == "network" and report.block == STANDARD:
        same = report.whole.replacement.cost == report.whole.as_is.cost
        return "" if same else "standard: each block as one plain convolution"
    everything = _everything(report)
    kept = [row for row in everything if row.kept and row.kind in CONVOLUTION_KINDS]
    kept = [row for row in kept if row.as_is.cost.macs]
    if not kept:
        return ""
    whole = sum(row.as_is.cost.macs for row in everything)
    part = share(Fraction(sum(row.as_is.cost.macs for row in kept), whole))
    reasons = Counter(row.kept for row in kept).most_common()
    what = ", ".join(
        f"{number:,} {'since ' * reason[0].isdigit()}{reason}" for reason, number in reasons
    )
    return f"kept: {what} ({part} of the {UNITS[report.unit][0]})"


def _counters_agree(report: Report) -> Iterator[str]:
    """Which counters agree; what differs; or why nothing is checked."""
    whole = report.whole
    if not whole.as_is.cost.macs and not whole.unknown:
        return
    if whole.crosscheck == "mismatch":
        faults = report.faults or ["the rows that are marked: fvcore or torch counts otherwise"]
        yield from (f"{DIFFERENT} {fault}" for fault in faults)
    elif whole.as_is.counted is None:
        if report.command == "model":
            yield f"not checked ({for_who_asks('--no-verify', 'verify=False')})"
    elif report.command == "network":
        yield _LAYERS_AGREE
    else:
        yield _counted_of_model(report, whole, _everything(report))


def _counted_of_model(report: Report, whole: Row, everything: Sequence[Row]) -> str:
    checked = [row for row in everything if row.as_is.counted and row.as_is.cost.macs]
    layers = "each conv and linear layer" if checked else ""
    if whole.crosscheck == "exact":
        by_fvcore = f", fvcore {layers}" if layers else ""
        return f"{_MODELS_AGREE}{by_fvcore}"
    unchecked = [
        f"{row.name} ({row.kind})"
        for row in everything
        if row.as_is.cost.macs and row.crosscheck == "not proved"
    ]
    reason = "a note says why" if report.doubts else "operators without a formula"
    if unchecked and not (whole.unknown or report.doubts):
        more = f" and {len(unchecked) - 1:,} more" if len(unchecked) > 1 else ""
        reason = f"neither fvcore nor torch counts {unchecked[0]}{more}"
    return f"not checked as a whole: {reason}{f'; fvcore counts {layers}' if layers else ''}"


def _hidden(report: Report, lines: Sequence[TableLine]) -> str:
    """What ran and has no line of its own, since it has no MACs and few params."""
    if report.selected:
        return ""
    everything = _everything(report)
    least = least_params(everything)
    summed = {
        id(row)
        for line in lines
        if line.is_module and not line.has_parts and not any(is_seen(r, least) for r in line.rows)
        for row in line.rows
    }
    hidden = [
        row
        for row in everything
        if not is_seen(row, least) and row.calls != 0 and id(row) not in summed
    ]
    if not hidden:
        return ""
    kinds = Counter(row.kind for row in hidden)
    what = ", ".join(f"{number:,} {kind}" for kind, number in kinds.most_common(_MOST_WITHOUT))
    what += ", ..." if len(kinds) > _MOST_WITHOUT else ""
    held = sum(row.as_is.cost.params for row in hidden)
    return f"{what} without {UNITS[report.unit][0]}{f' ({held:,} params)' if held else ''}"


# ---- Several. ----


def _totals_sheet(report: Report, rows: Sequence[Row]) -> Sheet:
    """Several networks or models, a row of totals each."""
    counts = Counts(report.unit)
    prefix, title, inputs = _in_common(report, rows)
    columns = [
        Column(report.command, lambda row: (row.name or "").removeprefix(prefix), role="name"),
        *inputs,
        counts.as_is(),
        params(),
        *_memory_columns(),
    ]
    if report.block is not None:
        block = report.replacement.name
        columns += [counts.rewritten(block, rank=LATE), ratio()]
    if any(row.training for row in rows):
        trained = Column(
            "trainable", lambda row: Number(row.trainable_params), 1, fields=("trainable_params",)
        )
        columns += [trained, *_training_columns(counts)]
    counted = [row for row in rows if row.as_is.counted]
    notes = [f"note: {row.name}: {row.no_formula}" for row in rows if row.unknown]
    if report.command == "model":
        notes += [f"note: {row.name}: {doubt}" for row in rows for doubt in row.extra.doubts]
    notes += report.notes
    if any(row.crosscheck == "mismatch" for row in rows):
        notes.append(f"{DIFFERENT} fvcore or torch counts something else")
    elif counted and all(row.crosscheck == "exact" for row in rows):
        agree = f"{_MODELS_AGREE} of each model" if report.command == "model" else _LAYERS_AGREE
        notes.append(f"{agree}; {SHORT_UNIT[report.unit]}")
    elif report.command == "network":
        verify = for_who_asks("--verify", "verify=True")
        more = f"{verify} has fvcore and torch count them too"
        notes.append(f"{SHORT_UNIT[report.unit]}; {more}")
    else:
        notes.append(SHORT_UNIT[report.unit])
    return Sheet.of(title, with_asked(columns, report.asked), rows, notes, paths=True, flat=True)


def _in_common(report: Report, rows: Sequence[Row]) -> tuple[str, str, list[Column]]:
    """The beginning that all names share, the title, and columns of what rows are counted on."""
    if report.command == "network":

        def width(row: Row) -> str:
            return f"{float(row.width_multiplier):.6g}" if row.width_multiplier else ""

        columns = [
            Column("width", width, role="name"),
            Column("input", lambda row: times(row.layer.input_size), role="name"),
        ]
        columns = [c._replace(rank=int(len({*map(c.cell, rows)}) == 1)) for c in columns]
        return "", report.title, columns if columns[0].rank == 0 else columns[1:]
    at = {row.extra.at for row in rows}
    modules = {(row.name or "").rpartition(":")[0] for row in rows}
    title, prefix = report.title, ""
    if len(modules) == 1 and len(rows) > 1:
        [module] = modules
        title, prefix = f"{title} of {module}", f"{module}:"
    if len(at) == 1:
        return prefix, f"{title}{at.pop()}", []
    column = Column(
        "input", lambda row: row.extra.at.removeprefix(" at ").lstrip(", "), rank=1, role="kind"
    )
    return prefix, title, [column]
