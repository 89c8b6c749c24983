"""The picture of what standard, depthwise and pointwise convolutions read and write.

It is small enough to be counted: 3 channels in, 4 out, a 3x3 filter. The MACs beside it are those
of the first page's layer, as dscalc computes them. One file is light and dark, as its reader is.
The colours are three of those of plots, which every colour vision tells apart.
"""

from collections.abc import Iterator

from dscalc import Block, Conv

LAYER = Conv(3, 64, 3, 224)
WIDTH, ROW, MARGIN = 560, 158, 18
MAP, TAP, SHIFT = 58, 9, 9  # a map, one weight, and from one channel to the next
STYLE = """\
.paper { fill: #ffffff; stroke: #d8dee4 }
text { fill: #1f2328; font: 15px system-ui, "DejaVu Sans", sans-serif }
.name { font-weight: bold; font-size: 17px }
.end { text-anchor: end }
.middle { text-anchor: middle }
.small { font-size: 14px }
rect { stroke: #ffffff; stroke-width: 1 }
.c0 { fill: #d95f02 } .c1 { fill: #bbcc33 } .c2 { fill: #4477aa } .mixed { fill: #8a8f98 }
.window { fill: none; stroke: #1f2328; stroke-width: 2 }
.arrow { fill: none; stroke: #1f2328; stroke-width: 1.5 }
@media (prefers-color-scheme: dark) {
  .paper { fill: #131416; stroke: #3d444d }
  text { fill: #e6edf3 }
  rect { stroke: #131416 }
  .window, .arrow { stroke: #e6edf3 }
}"""


def picture() -> str:
    """All of it, as SVG."""
    depthwise, pointwise = Block.parse("separable").steps(LAYER)
    separable = depthwise.cost + pointwise.cost
    part = f"{separable.macs / LAYER.cost.macs:.2%}"
    height = 3 * ROW + 50
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}">',
        "<title>A standard, a depthwise and a pointwise convolution</title>",
        f"<style>\n{STYLE}\n</style>",
        f'<rect class="paper" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8"/>',
        *_row(0, "standard", "IC * OC * F^2 * D^2", LAYER.cost.macs),
        *_filters(0, ["012"] * 4, 3, "OC filters: each reads all channels, 3x3"),
        *_maps(0, 446, ["mixed"] * 4, 1, "OC maps"),
        *_row(1, "depthwise", "IC * F^2 * D^2", depthwise.cost.macs),
        *_filters(1, ["0", "1", "2"], 3, "IC filters: each reads one channel, 3x3"),
        *_maps(1, 446, ["c0", "c1", "c2"], 1, "IC maps"),
        *_row(2, "pointwise", "IC * OC * D^2", pointwise.cost.macs),
        *_filters(2, ["012"] * 4, 1, "OC filters: each reads all channels, 1x1"),
        *_maps(2, 446, ["mixed"] * 4, 1, "OC maps"),
        *_heading(3, "separable", f"both steps: {separable.macs:,} MACs, {part} of standard"),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _row(row: int, name: str, formula: str, macs: int) -> Iterator[str]:
    """The heading of a row, the maps that it reads, and the way that they go."""
    yield from _heading(row, name, f"{formula} = {macs:,} MACs")
    taps = 1 if name == "pointwise" else 3
    yield from _maps(row, MARGIN, ["c0", "c1", "c2"], taps, "IC maps")
    for x in (114, 394):
        yield f'<path class="arrow" d="M{x} {row * ROW + 86}h30m-7 -5l7 5l-7 5"/>'


def _heading(row: int, name: str, words: str) -> Iterator[str]:
    y = row * ROW + 32
    yield f'<text class="name" x="{MARGIN}" y="{y}">{name}</text>'
    yield f'<text class="end" x="{WIDTH - MARGIN}" y="{y}">{words}</text>'


def _maps(row: int, x: int, channels: list[str], taps: int, words: str) -> Iterator[str]:
    """Maps one behind the other; on the first, what one filter reads or writes."""
    y = row * ROW + 46
    for behind, channel in reversed(list(enumerate(channels))):
        front = len(channels) - 1 - behind
        yield _square(channel, x + behind * SHIFT, y + front * SHIFT, MAP)
    start = 8 if taps == 3 else 8 + TAP
    front = len(channels) - 1
    yield _square("window", x + start, y + front * SHIFT + start, taps * TAP)
    yield f'<text class="small" x="{x}" y="{row * ROW + 148}">{words}</text>'


def _filters(row: int, filters: list[str], taps: int, words: str) -> Iterator[str]:
    """Filters side by side: of each, the weights for every channel that it reads."""
    middle = 270
    for number, channels in enumerate(filters):
        side = taps * TAP + (len(channels) - 1) * SHIFT
        x = middle + (number - (len(filters) - 1) / 2) * 58 - side / 2
        y = row * ROW + 86 - side / 2
        for behind, channel in reversed(list(enumerate(channels))):
            front = len(channels) - 1 - behind
            for tap in range(taps**2):
                down, right = divmod(tap, taps)
                across = x + behind * SHIFT + right * TAP
                yield _square(f"c{channel}", across, y + front * SHIFT + down * TAP, TAP)
    yield f'<text class="small middle" x="{middle}" y="{row * ROW + 148}">{words}</text>'


def _square(kind: str, x: float, y: float, side: int) -> str:
    return f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{side}" height="{side}"/>'
