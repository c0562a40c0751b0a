"""A sheet to draw figures on, as SVG inside a page: its colours are the page's, so that they follow light and dark.

Kinds name what a part means, not how it looks: `read` understands, `draw` draws, `still` is frozen, `plain` is neither.
docs/assets/css/figures.css says how each looks.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

Point = tuple[float, float]


class Sheet:
    """Shapes in the order in which they are drawn."""

    def __init__(self, name: str, width: int, height: int, title: str, description: str, classes: str = ""):
        """Args: name is unique on a page; title and description are what a screen reader says."""
        self._name, self._size = name, (width, height)
        self._title, self._description, self._classes = title, description, classes
        self._parts: list[str] = []

    def box(self, x: float, y: float, width: float, height: float, kind: str, radius: float = 8) -> None:
        shape = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius:g}"'
        self._parts.append(f'<rect class="{kind}" {shape}/>')

    def ellipse(self, x: float, y: float, rx: float, ry: float, kind: str) -> None:
        self._parts.append(f'<ellipse class="{kind}" cx="{x:g}" cy="{y:g}" rx="{rx:g}" ry="{ry:g}"/>')

    def text(self, x: float, y: float, words: str, kind: str = "", anchor: str = "middle") -> None:
        """Words on a base line; a subscript stands after an underscore, as in A_1."""
        before, _, below = words.partition("_")
        more = f'<tspan class="sub" dy="4">{escape(below)}</tspan>' if below else ""
        label = f'class="{kind}" x="{x:g}" y="{y:g}" text-anchor="{anchor}"'
        self._parts.append(f"<text {label}>{escape(before)}{more}</text>")

    def lines(self, x: float, y: float, words: Sequence[str], kind: str = "", anchor: str = "middle") -> None:
        """Words on several lines."""
        for i, line in enumerate(words):
            self.text(x, y + 17 * i, line, kind, anchor)

    def path(self, points: Sequence[Point], kind: str, *, arrow: bool = True) -> None:
        """A line through points, its corners rounded."""
        d = f"M{points[0][0]:g} {points[0][1]:g}"
        for before, here, after in zip(points, points[1:], points[2:], strict=False):
            into, out = _towards(here, before), _towards(here, after)
            d += f"L{into[0]:g} {into[1]:g}Q{here[0]:g} {here[1]:g} {out[0]:g} {out[1]:g}"
        d += f"L{points[-1][0]:g} {points[-1][1]:g}"
        head = f' marker-end="url(#{self._name}-{kind.split()[0]})"' if arrow else ""
        self._parts.append(f'<path class="{kind} flow" d="{d}"{head}/>')

    def picture(self, x: float, y: float, size: float, url: str) -> None:
        """A square image with a thin frame."""
        place = f'x="{x:g}" y="{y:g}" width="{size:g}" height="{size:g}"'
        self._parts.append(f'<image href="{escape(url)}" {place} preserveAspectRatio="none"/>')
        self._parts.append(f'<rect class="frame" {place} rx="2"/>')

    def svg(self) -> str:
        """The whole figure."""
        width, height = self._size
        heads = "".join(
            f'<marker id="{self._name}-{kind}" viewBox="0 0 8 8" refX="6.5" refY="4" markerWidth="7" markerHeight="7" '
            f'orient="auto"><path class="{kind} head" d="M0 0 8 4 0 8z"/></marker>'
            for kind in ("read", "draw", "still", "plain")
        )
        return (
            f'<svg class="figure {self._classes}" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            f'role="img" aria-labelledby="{self._name}-title {self._name}-text">'
            f'<title id="{self._name}-title">{escape(self._title)}</title>'
            f'<desc id="{self._name}-text">{escape(self._description)}</desc>'
            f"<defs>{heads}</defs>{''.join(self._parts)}</svg>"
        )


def _towards(start: Point, end: Point, radius: float = 7) -> Point:
    """A point a little way from a corner."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = max((dx * dx + dy * dy) ** 0.5, 1e-9)
    share = min(radius, length / 2) / length
    return start[0] + dx * share, start[1] + dy * share
