"""The figure of H-LoRA beside the mixture that it computes."""

from __future__ import annotations

from svg import Sheet

EXPERTS = 4
TITLE = "H-LoRA on one linear layer"
TEXT = (
    "The token x goes to the frozen weight W, to a router and to A. The router gives a weight to each of four experts. "
    "A is the four experts' matrices in one; its output is multiplied by their weights, block by block, and goes "
    "through B, again the four in one. What comes out is added to W x. So four experts cost two matrix products "
    "instead of eight."
)


def hlora() -> str:
    """One figure for both widths."""
    sheet = Sheet("hlora-figure", 440, 470, TITLE, TEXT)
    sheet.ellipse(220, 440, 17, 17, "plain block")
    sheet.text(220, 445, "x", "name")

    # What is frozen, at the left
    sheet.path([(203, 440), (52, 440), (52, 306)], "still")
    sheet.box(6, 150, 92, 152, "still block")
    sheet.text(52, 222, "W", "big")
    sheet.text(52, 246, "frozen", "note")
    sheet.path([(52, 150), (52, 40), (198, 40)], "still")

    # A, the gates, B
    sheet.path([(220, 423), (220, 392)], "read")
    for i in range(EXPERTS):
        sheet.box(140 + 40 * i, 336, 40, 52, f"read expert-{i}", 0)
        sheet.text(160 + 40 * i, 366, f"A_{i + 1}", "small")
    sheet.path([(220, 336), (220, 312)], "read")
    for i in range(EXPERTS):
        sheet.box(140 + 40 * i, 276, 40, 32, f"read expert-{i}", 0)
        sheet.text(160 + 40 * i, 297, f"g_{i + 1}", "small")
    sheet.text(120, 299, "⊙", "big")
    sheet.path([(220, 276), (220, 252)], "read")
    for i in range(EXPERTS):
        sheet.box(140 + 40 * i, 110, 40, 138, f"read expert-{i}", 0)
        sheet.text(160 + 40 * i, 184, f"B_{i + 1}", "small")
    sheet.path([(220, 110), (220, 62)], "read")

    # The router, at the right
    sheet.path([(237, 440), (384, 440), (384, 392)], "plain")
    sheet.box(336, 336, 96, 52, "plain block")
    sheet.lines(384, 358, ["router,", "softmax"], "small")
    sheet.path([(384, 336), (384, 292), (306, 292)], "plain")
    sheet.lines(346, 236, ["a weight for", "each expert,", "token by token"], "note", "start")

    sheet.ellipse(220, 40, 18, 18, "plain block")
    sheet.text(220, 46, "+", "name")
    sheet.path([(238, 40), (330, 40)], "plain")
    sheet.text(346, 45, "y", "name")
    sheet.lines(346, 128, ["one B of all", "experts"], "note", "start")
    return sheet.svg()
