"""Line charts in SVG, two in a row, for light and dark pages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import log10

_COLUMNS = 2
_WIDTH, _HEIGHT = 430, 290
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 18, 52, 48
_LEGEND = 44
_COLOURS = ("#2f8fd0", "#009e73", "#d79a00", "#d55e00", "#c2629a", "#848d97")
_STYLE = """
text { font: 12px system-ui, sans-serif; fill: #24292f }
.title { font-size: 13px; font-weight: 600 }
.tick { fill: #57606a }
.grid { stroke: #d0d7de; stroke-width: 1 }
.line { fill: none; stroke-width: 2; stroke-linejoin: round }
.page { fill: #ffffff }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .tick { fill: #9da7b1 }
  .grid { stroke: #30363d }
  .page { fill: #0d1117 }
}
"""


@dataclass(frozen=True, slots=True)
class Panel:
    """One chart.

    Attributes:
        title: above it.
        measured: what the y axis shows.
        xs: where the points are, ascending and above 0; the axis is logarithmic.
        lines: the points' heights by the name of their line.
        top: the largest height that the axis shows.
        form: how a height is written, as `str.format` has it.
    """

    title: str
    measured: str
    xs: Sequence[int]
    lines: Mapping[str, Sequence[float]]
    top: float
    form: str

    def x(self, value: float) -> float:
        first, last = log10(self.xs[0]), log10(self.xs[-1])
        share = (log10(value) - first) / (last - first)
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        return _HEIGHT - _BOTTOM - value / self.top * (_HEIGHT - _TOP - _BOTTOM)


def draw(panels: Sequence[Panel], across: str, lines: str) -> str:
    """Return the SVG of charts that have the same lines.

    Args:
        panels: the charts, row by row.
        across: what all x axes show.
        lines: what the names of the lines count.
    """
    width = _COLUMNS * _WIDTH
    height = _LEGEND + -(-len(panels) // _COLUMNS) * _HEIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img">',
        f"<title>{escape('; '.join(f'{one.title}: {one.measured}' for one in panels))}</title>",
        f"<style>{_STYLE}</style>",
        f'<rect class="page" width="{width}" height="{height}"/>',
        *_legend(lines, panels[0].lines),
    ]
    for number, panel in enumerate(panels):
        row, column = divmod(number, _COLUMNS)
        parts.append(f'<g transform="translate({column * _WIDTH} {_LEGEND + row * _HEIGHT})">')
        parts += [*_axes(panel, across), *_lines(panel), "</g>"]
    return "\n".join([*parts, "</svg>", ""])


def _text(x: float, y: float, text: str, anchor: str = "start", kind: str = "") -> str:
    kind = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{kind}>{escape(text)}</text>'


def _legend(lines: str, names: Iterable[str]) -> Iterator[str]:
    yield _text(_LEFT, 27, lines)
    for number, name in enumerate(names):
        x, colour = _LEFT + 70 + number * 84, _COLOURS[number]
        yield f'<path class="line" stroke="{colour}" d="M{x} 23h24"/>'
        yield f'<circle cx="{x + 12}" cy="23" r="3.5" fill="{colour}"/>'
        yield _text(x + 30, 27, name)


def _axes(panel: Panel, across: str) -> Iterator[str]:
    yield _text(_LEFT, 18, panel.title, kind="title")
    yield _text(_LEFT, 37, panel.measured)
    for step in range(5):
        value = panel.top * step / 4
        y = panel.y(value)
        yield f'<path class="grid" d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}"/>'
        yield _text(_LEFT - 8, y + 4, panel.form.format(value), "end", "tick")
    for value in panel.xs:
        yield _text(panel.x(value), _HEIGHT - _BOTTOM + 18, str(value), "middle", "tick")
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    yield _text(middle, _HEIGHT - _BOTTOM + 36, across, "middle")


def _lines(panel: Panel) -> Iterator[str]:
    for colour, heights in zip(_COLOURS, panel.lines.values(), strict=False):
        points = [
            f"{panel.x(x):.1f} {panel.y(y):.1f}" for x, y in zip(panel.xs, heights, strict=True)
        ]
        yield f'<path class="line" stroke="{colour}" d="M{"L".join(points)}"/>'
        for point in points:
            x, y = point.split()
            yield f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>'
