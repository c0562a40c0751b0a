"""A phantom: one synthetic patient, drawn as one or two modalities see them, with all that is true of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

SIDE = 64  # pixels of an image


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What is wrong with a patient.

    Attributes:
        name: as a report names it, such as "pleural effusion".
        side: the patient's: left, right or both; None where a side means nothing.
        size: small or large; None where a size means nothing.
        count: how many of them the image shows.
    """

    name: str
    side: str | None = None
    size: str | None = None
    count: int = 1


@dataclass(frozen=True, kw_only=True)
class Phantom:
    """One synthetic patient.

    Attributes:
        subject: which kind of phantom, a key of `SUBJECTS`.
        organ: what is imaged, as an answer names it.
        plane: axial or frontal; None where there is none to speak of.
        images: by modality (CT, MRI, X-ray, ultrasound, OCT, fundus photography, microscopy),
            (SIDE, SIDE, 3) uint8, registered with each other.
        finding: None in a healthy one.
        lesions: (SIDE, SIDE) uint8, 0 for healthy pixels, else the number of the lesion that covers them.
        facts: what else is true and may be asked, such as {"eye": "left"}.
    """

    subject: str
    organ: str
    plane: str | None
    images: Mapping[str, NDArray[np.uint8]]
    finding: Finding | None
    lesions: NDArray[np.uint8]
    facts: Mapping[str, str] = field(default_factory=dict)
