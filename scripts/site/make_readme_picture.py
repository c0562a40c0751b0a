"""Draws docs/images/look.svg, the README's picture: an image, an answer and a drawing, as the gallery has them.

    .venv/bin/python scripts/site/make_readme_picture.py

The images are in the file, and its colours follow light and dark, as a README's pictures stand alone.
"""

from __future__ import annotations

import base64
from html import escape
from pathlib import Path

from gallery import FOLDER
from gallery_page import first_drawing, turn_about

ROOT = Path(__file__).parents[2]
PATH = ROOT / "docs" / "images" / "look.svg"
STYLE = """
text { font: 400 17px ui-sans-serif, system-ui, "Segoe UI", Helvetica, Arial, sans-serif; fill: #14212a; }
.tag { font-weight: 650; font-size: 16px; } .soft { fill: #52616b; font-size: 15px; }
.said { font: 500 30px "Iowan Old Style", "Palatino Linotype", Georgia, serif; }
.read { fill: #0d6570; } .draw { fill: #a8451a; }
.card { fill: #ffffff; stroke: #d8d3c8; } .lane { fill: none; stroke-width: 2.5; }
.lane.read, .bar.read { stroke: #1d8b97; } .lane.draw, .bar.draw { stroke: #cf6a37; } .bar { stroke-width: 5; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6ecee; } .soft { fill: #a3b3bc; } .read { fill: #74cdd6; } .draw { fill: #f3a67f; }
  .card { fill: #172128; stroke: #33434d; }
}
"""


def main() -> None:
    drawing = first_drawing()
    turn = turn_about(drawing["input"])
    said = turn["answer"].capitalize()
    label = f"From one CT of a brain, HealthGPT answers {turn['question']} with {said}, and draws its MRI."
    PATH.write_text(
        f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 820 384" width="820" height="384" role="img">
<title>{escape(label)}</title><style>{STYLE}</style>
{picture(drawing["input"]["file"], 20, 60, 220)}
<text class="soft" x="130" y="306" text-anchor="middle">one image</text>
<path class="lane read" d="M240 162H272Q290 162 290 144V94Q290 76 308 76H340"/>
<path class="lane draw" d="M240 178H272Q290 178 290 196V244Q290 262 308 262H340"/>
<rect class="card" x="340" y="12" width="460" height="122" rx="12"/><path class="bar read" d="M342 20V126"/>
<text class="tag read" x="366" y="44">understand</text><text x="366" y="70">{escape(turn["question"])}</text>
<text class="said read" x="366" y="112">{escape(said)}</text>
<rect class="card" x="340" y="152" width="460" height="220" rx="12"/><path class="bar draw" d="M342 160V364"/>
<text class="tag draw" x="366" y="186">draw</text><text x="366" y="212">{escape(drawing["question"])}</text>
{picture(drawing["drawn"]["file"], 366, 226, 134)}
</svg>
""",
        encoding="utf-8",
    )
    print(PATH.relative_to(ROOT))


def picture(name: str, x: int, y: int, size: int) -> str:
    """An image of the gallery, inside the file."""
    data = base64.b64encode((FOLDER / name).read_bytes()).decode()
    return f'<image x="{x}" y="{y}" width="{size}" height="{size}" href="data:image/webp;base64,{data}"/>'


if __name__ == "__main__":
    main()
