"""Draws the demos' example images into healthgpt/examples: phantoms of the test split, chosen by their finding.

.venv/bin/python scripts/make_examples.py
"""

from itertools import count
from pathlib import Path

from PIL import Image

from healthgpt.data.phantoms.phantom import Phantom
from healthgpt.data.phantoms.source import draw_patient
from healthgpt.data.phantoms.subjects import SUBJECTS

FOLDER = Path(__file__).parents[1] / "healthgpt" / "examples"
SEED = 11
# Subject, finding, side and size.
WANTED = (("chest", "pleural effusion", "left", "large"), ("brain", "hemorrhage", "right", "large"))


def first(subject: str, name: str, side: str, size: str) -> Phantom:
    """The first patient of the seed with one such finding."""
    for number in count(list(SUBJECTS).index(subject), len(SUBJECTS)):
        phantom = draw_patient("test", SEED, number)
        finding = phantom.finding
        if finding and (finding.name, finding.side, finding.size, finding.count) == (name, side, size, 1):
            return phantom
    raise AssertionError("unreachable: the numbers do not end")


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for wanted in WANTED:
        phantom = first(*wanted)
        for modality, image in phantom.images.items():
            path = FOLDER / f"{phantom.subject}_{modality.lower().replace('-', '')}.png"
            Image.fromarray(image).save(path)
            print(path)


if __name__ == "__main__":
    main()
