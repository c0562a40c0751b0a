"""Draws the demos' example images into healthgpt/examples: phantoms of the test split, chosen by their finding.

.venv/bin/python scripts/make_examples.py

The head is a volume: one brain's CT, in Hounsfield units, smaller from slice to slice towards top and bottom, with its
lesion in the middle slices only.
"""

from itertools import count
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image
from scipy.ndimage import binary_fill_holes

from healthgpt.data.phantoms.phantom import Phantom
from healthgpt.data.phantoms.source import draw_patient
from healthgpt.data.phantoms.subjects import SUBJECTS

FOLDER = Path(__file__).parents[1] / "healthgpt" / "examples"
SEED = 11
# Subject, finding, side, size, number.
WANTED = (
    ("chest", "pleural effusion", "left", "large", 1),
    ("brain", "hemorrhage", "right", "large", 1),
    ("OCT", "macular edema", None, "large", 1),
    ("fundus", "hemorrhage", None, None, 3),
    ("microscopy", "adenocarcinoma", None, None, 1),
)
NUM_SLICES, LESION_SLICES = 20, range(8, 13)
SPACING = (3.4, 3.4, 6.0)  # millimetres
BRAIN_WIDTH, BONE, AIR = 80, 800, -1000  # Hounsfield units; the phantom's grey is a brain window


def first(subject: str, name: str, side: str | None, size: str | None, number: int) -> int:
    """The first patient of the seed with such a finding."""
    for patient in count(list(SUBJECTS).index(subject), len(SUBJECTS)):
        finding = draw_patient("test", SEED, patient).finding
        if finding and (finding.name, finding.side, finding.size, finding.count) == (name, side, size, number):
            return patient
    raise AssertionError("unreachable: the numbers do not end")


def hounsfield(phantom: Phantom) -> np.ndarray:
    """(R, C) int16 of a brain's CT."""
    grey = phantom.images["CT"][..., 0].astype(float)
    values = np.where(grey > 250, BONE, grey / 255 * BRAIN_WIDTH)
    return np.where(binary_fill_holes(grey > 20), values, AIR).round().astype(np.int16)


def head(patient: int) -> nibabel.Nifti1Image:
    """The volume: columns run to the patient's left, rows to the back, slices to the top."""
    ill, healthy = (hounsfield(draw_patient("test", SEED, patient, healthy=sound)) for sound in (False, True))
    volume = np.full((*ill.shape, NUM_SLICES), AIR, np.int16)
    middle = (NUM_SLICES - 1) / 2
    for place in range(NUM_SLICES):
        source = Image.fromarray((ill if place in LESION_SLICES else healthy).astype(np.float32))
        side = round(ill.shape[0] * np.sqrt(1 - 0.85 * ((place - middle) / (middle + 0.5)) ** 2))
        start = (ill.shape[0] - side) // 2
        smaller = np.asarray(source.resize((side, side), Image.Resampling.BILINEAR))
        volume[start : start + side, start : start + side, place] = np.rint(smaller)
    affine = np.diag([-SPACING[0], -SPACING[1], SPACING[2], 1.0])
    image = nibabel.Nifti1Image(volume.swapaxes(0, 1), affine)
    image.header.set_xyzt_units("mm")
    return image


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for wanted in WANTED:
        patient = first(*wanted)
        phantom = draw_patient("test", SEED, patient)
        for modality, pixels in phantom.images.items():
            name = modality.lower().replace("-", "").replace(" photography", "")
            path = FOLDER / (f"{name}.png" if name in phantom.subject.lower() else f"{phantom.subject}_{name}.png")
            Image.fromarray(pixels).save(path)
            print(path)
        if phantom.subject == "brain":
            nibabel.save(head(patient), FOLDER / "head_ct.nii.gz")
            print(FOLDER / "head_ct.nii.gz")


if __name__ == "__main__":
    main()
