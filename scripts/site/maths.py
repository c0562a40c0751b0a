"""Equations as MathML, made when the site is built: no script runs for them, and a screen reader can read them."""

from __future__ import annotations

import re
from html import unescape

from latex2mathml.converter import convert

_INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
_BLOCK = re.compile(r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>', re.DOTALL)


def with_mathml(html: str) -> str:
    """A page whose equations, as arithmatex leaves them, are MathML."""
    html = _INLINE.sub(lambda found: convert(unescape(found[1])), html)
    return _BLOCK.sub(
        lambda found: f'<div class="equation">{convert(unescape(found[1]).strip(), display="block")}</div>', html
    )
