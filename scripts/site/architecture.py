"""The figure of the whole model, wide for a desk and tall for a phone."""

from __future__ import annotations

from svg import Sheet

TITLE = "The architecture of HealthGPT"
TEXT = (
    "A frozen CLIP ViT gives features at two depths. Those after its first block, concrete ones, go through a "
    "projector of their own to draw; those before its last block, abstract ones, through another to answer. A hard "
    "router, set by the task, passes one of them on to the frozen language model, and chooses which of two H-LoRA "
    "plugins runs on each of its linear layers. Out come words, or 1,024 codes, from which a VQGAN decodes an image."
)
LAYERS = ("qkv", "out", "gate, up", "down")  # linear layers of a block of Phi-3


def architecture(assets: str) -> str:
    """Both figures; the page shows the one that fits.

    Args:
        assets: where the page finds the gallery's images.
    """
    return wide(assets) + tall(assets)


def wide(assets: str) -> str:
    sheet = Sheet("arch-wide", 1120, 470, TITLE, TEXT, "wide-only")
    sheet.picture(2, 290, 116, f"{assets}/test-1-000000-ct.webp")
    sheet.text(60, 428, "an image", "note")
    sheet.path([(122, 348), (166, 348)], "still")

    sheet.box(170, 44, 168, 376, "still panel", 12)
    sheet.text(254, 30, "CLIP ViT, frozen", "name")
    for y, kind, words in (
        (64, "still", "block 24"),
        (104, "read", "block 23"),
        (144, "still", "block 22"),
        (290, "still", "block 2"),
        (330, "draw", "block 1"),
    ):
        sheet.box(190, y, 128, 30, f"{kind} block")
        sheet.text(254, y + 20, words, "small")
    sheet.text(254, 238, "⋮", "dots")
    sheet.text(254, 400, "patches", "note")
    sheet.path([(318, 119), (396, 119)], "read")
    sheet.path([(318, 345), (396, 345)], "draw")
    sheet.text(343, 109, "abstract", "note read", "start")
    sheet.text(343, 335, "concrete", "note draw", "start")

    for y, kind in ((88, "read"), (314, "draw")):
        sheet.box(400, y, 116, 62, f"{kind} block")
        sheet.lines(458, y + 27, ["projector", "2 layers"], "small")
    sheet.path([(516, 119), (560, 119), (560, 208), (576, 208)], "read", arrow=False)
    sheet.path([(516, 345), (560, 345), (560, 256), (576, 256)], "draw", arrow=False)
    sheet.ellipse(580, 208, 5, 5, "read pin")
    sheet.ellipse(580, 256, 5, 5, "draw pin")
    sheet.ellipse(622, 232, 6, 6, "plain pin")
    sheet.path([(622, 232), (584, 210)], "plain lever", arrow=False)
    sheet.path([(628, 232), (676, 232)], "plain")
    sheet.path([(622, 224), (622, 71), (676, 71)], "plain dashed")
    sheet.lines(576, 290, ["hard router:", "the task", "decides"], "note", "start")

    sheet.box(680, 44, 232, 376, "still panel", 12)
    sheet.text(796, 30, "language model, frozen", "name")
    for i, words in enumerate(LAYERS):
        y = 92 + 72 * i
        sheet.box(734, y, 124, 44, "still block")
        sheet.text(796, y + 27, words, "small")
        sheet.box(696, y + 6, 30, 32, "read plug", 6)
        sheet.box(866, y + 6, 30, 32, "draw plug", 6)
        if i:
            sheet.path([(796, y), (796, y - 26)], "still")
    sheet.text(711, 76, "read", "note read")
    sheet.text(881, 76, "draw", "note draw")
    sheet.text(796, 404, "an H-LoRA plugin per task", "note")
    sheet.text(796, 64, "⋮", "dots")

    sheet.box(470, 436, 200, 32, "plain block")
    sheet.text(570, 457, "“What is the diagnosis?”", "small")
    sheet.path([(670, 452), (796, 452), (796, 424)], "plain")

    sheet.path([(912, 119), (956, 119)], "read")
    sheet.box(960, 88, 156, 62, "read block")
    sheet.lines(1038, 114, ["words:", "“hemorrhage”"], "small")
    sheet.path([(912, 345), (938, 345), (938, 226), (956, 226)], "draw")
    codes(sheet, 960, 202, columns=13, rows=4, size=12)
    sheet.text(1038, 196, "1,024 codes", "note")
    sheet.path([(1038, 252), (1038, 270)], "draw")
    sheet.box(960, 274, 156, 30, "still block")
    sheet.text(1038, 294, "VQGAN decoder", "small")
    sheet.path([(1038, 304), (1038, 322)], "draw")
    sheet.picture(989, 326, 98, f"{assets}/test-1-000000-ct2mri-0.webp")
    sheet.text(1038, 446, "an image", "note")
    return sheet.svg()


def tall(assets: str) -> str:
    sheet = Sheet("arch-tall", 360, 850, TITLE, TEXT, "tall-only")
    sheet.picture(8, 6, 92, f"{assets}/test-1-000000-ct.webp")
    sheet.text(54, 116, "an image", "note")
    sheet.path([(54, 124), (54, 156)], "still")

    sheet.text(350, 148, "CLIP ViT, frozen", "name", "end")
    sheet.box(6, 160, 348, 64, "still panel", 12)
    for x, kind, words in ((18, "draw", "1"), (74, "still", "2"), (182, "still", "22"), (238, "read", "23"),
                           (294, "still", "24")):  # fmt: skip
        sheet.box(x, 174, 48, 36, f"{kind} block")
        sheet.text(x + 24, 197, words, "small")
    sheet.text(152, 197, "…", "dots")
    sheet.path([(42, 210), (42, 262)], "draw")
    sheet.path([(262, 210), (262, 262)], "read")
    sheet.text(52, 248, "concrete", "note draw", "start")
    sheet.text(252, 248, "abstract", "note read", "end")

    sheet.box(6, 266, 116, 50, "draw block")
    sheet.box(204, 266, 116, 50, "read block")
    for x in (64, 262):
        sheet.lines(x, 287, ["projector", "2 layers"], "small")
    sheet.path([(64, 316), (64, 344), (134, 344), (134, 356)], "draw", arrow=False)
    sheet.path([(262, 316), (262, 344), (198, 344), (198, 356)], "read", arrow=False)
    sheet.ellipse(134, 360, 5, 5, "draw pin")
    sheet.ellipse(198, 360, 5, 5, "read pin")
    sheet.ellipse(166, 398, 6, 6, "plain pin")
    sheet.path([(166, 398), (196, 364)], "plain lever", arrow=False)
    sheet.path([(166, 404), (166, 430)], "plain")
    sheet.lines(226, 386, ["hard router:", "the task decides"], "note", "start")
    sheet.text(110, 400, "question", "note", "end")
    sheet.path([(70, 408), (70, 430)], "plain")

    sheet.box(6, 434, 348, 222, "still panel", 12)
    sheet.text(180, 458, "language model, frozen", "name")
    for i, words in enumerate(LAYERS):
        y = 474 + 38 * i
        sheet.box(60, y, 240, 28, "still block")
        sheet.text(180, y + 19, words, "small")
        sheet.box(22, y, 28, 28, "draw plug", 6)
        sheet.box(310, y, 28, 28, "read plug", 6)
    sheet.text(180, 644, "an H-LoRA plugin per task on every layer", "note")

    sheet.path([(280, 656), (280, 690)], "read")
    sheet.box(210, 694, 144, 50, "read block")
    sheet.lines(282, 715, ["words:", "“hemorrhage”"], "small")
    sheet.path([(80, 656), (80, 684)], "draw")
    codes(sheet, 6, 688, columns=12, rows=4, size=12)
    sheet.lines(154, 708, ["1,024", "codes"], "note", "start")
    sheet.path([(80, 736), (80, 756)], "draw")
    sheet.box(6, 760, 148, 30, "still block")
    sheet.text(80, 780, "VQGAN decoder", "small")
    sheet.path([(154, 775), (206, 775)], "draw")
    sheet.picture(210, 758, 86, f"{assets}/test-1-000000-ct2mri-0.webp")
    sheet.text(302, 806, "an image", "note", "start")
    return sheet.svg()


def codes(sheet: Sheet, x: float, y: float, *, columns: int, rows: int, size: float) -> None:
    """Codes as a grid of shades, which repeat as codes do."""
    for row in range(rows):
        for column in range(columns):
            shade = (3 * column + 5 * row + column * row) % 4
            sheet.box(x + size * column, y + size * row, size - 2, size - 2, f"draw code-{shade}", 2)
