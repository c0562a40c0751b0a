"""What there is: the kinds of phantom, and the names that their images, organs and findings have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from healthgpt.data.phantoms import brain, chest, pelvis
from healthgpt.data.phantoms.brain import draw_brain
from healthgpt.data.phantoms.chest import draw_chest
from healthgpt.data.phantoms.fundus import draw_fundus
from healthgpt.data.phantoms.microscopy import draw_microscopy
from healthgpt.data.phantoms.oct import draw_oct
from healthgpt.data.phantoms.pelvis import draw_pelvis
from healthgpt.data.phantoms.phantom import Phantom
from healthgpt.data.phantoms.ultrasound import draw_ultrasound


class Draw(Protocol):
    """Draws one phantom; `healthy` is the chance of no finding."""

    def __call__(self, rng: np.random.Generator, healthy: float = ...) -> Phantom: ...


SUBJECTS: Mapping[str, Draw] = {
    "brain": draw_brain,
    "pelvis": draw_pelvis,
    "chest": draw_chest,
    "ultrasound": draw_ultrasound,
    "OCT": draw_oct,
    "fundus": draw_fundus,
    "microscopy": draw_microscopy,
}
MODALITIES = ("CT", "MRI", "X-ray", "ultrasound", "OCT", "fundus photography", "microscopy")
ORGANS = ("brain", "pelvis", "chest", "liver", "gallbladder", "retina", "colon", "blood")
PLANES = ("axial", "frontal")
# The modalities in which each subject is imaged.
IMAGED: Mapping[str, tuple[str, ...]] = {
    "brain": ("CT", "MRI"),
    "pelvis": ("CT", "MRI"),
    "chest": ("X-ray",),
    "ultrasound": ("ultrasound",),
    "OCT": ("OCT",),
    "fundus": ("fundus photography",),
    "microscopy": ("microscopy",),
}
# By organ and subject.
FINDINGS: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("brain", "brain"): brain.FINDINGS,
    ("pelvis", "pelvis"): pelvis.FINDINGS,
    ("chest", "chest"): chest.FINDINGS,
    ("liver", "ultrasound"): ("cyst", "hyperechoic mass"),
    ("gallbladder", "ultrasound"): ("gallstone",),
    ("retina", "OCT"): ("macular edema", "drusen", "subretinal fluid"),
    ("retina", "fundus"): ("hemorrhage", "hard exudates", "glaucomatous cupping"),
    ("colon", "microscopy"): ("adenocarcinoma",),
    ("blood", "microscopy"): ("malaria parasites",),
}
# Findings that come in numbers.
COUNTABLE: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("brain", "brain"): brain.FINDINGS,
    ("chest", "chest"): ("nodule",),
    ("liver", "ultrasound"): ("cyst", "hyperechoic mass"),
    ("gallbladder", "ultrasound"): ("gallstone",),
    ("retina", "fundus"): ("hemorrhage",),
}
