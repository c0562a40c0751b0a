"""Drawings of phantoms: what is asked, from which image, and the true result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from skimage.transform import downscale_local_mean

from healthgpt.data.phantoms.phantom import Phantom
from healthgpt.data.phantoms.reports import chest_report
from healthgpt.tasks import TaskType

SHRINKING = 4  # super-resolution: how many times smaller the input is
INSTRUCTIONS: dict[TaskType, Sequence[str]] = {
    TaskType.CT_TO_MRI: (
        "Turn this CT into an MRI.",
        "Convert this CT to MRI.",
        "I need a version of this CT in MRI.",
        "What would this CT look like as an MRI?",
        "Generate the MRI of this CT image.",
        "Transform the CT display into an MRI image.",
    ),
    TaskType.MRI_TO_CT: (
        "Turn this MRI into a CT.",
        "Convert this MRI to CT.",
        "I need a version of this MRI in CT.",
        "What would this MRI look like as a CT?",
        "Generate the CT of this MRI image.",
        "Transform the MRI display into a CT image.",
    ),
    TaskType.SUPER_RESOLUTION: (
        "Improve the resolution of this image.",
        "Could you improve the quality of this MRI image?",
        "Make this image sharper.",
        "Increase the resolution of this MRI.",
        "Super-resolve this image.",
    ),
    TaskType.RECONSTRUCTION: (
        "Reconstruct the image.",
        "Reconstruct the following medical image.",
        "Please reproduce this image.",
        "Draw this image again as it is.",
    ),
    TaskType.REPORT_TO_CXR: (
        "Draw the chest X-ray of this report: {}",
        "Generate a chest X-ray: {}",
        "Generate an X-ray from the report. {}",
        "Please make the X-ray that fits this report: {}",
        "{}",
    ),
}


@dataclass(frozen=True)
class Instruction:
    """One drawing.

    Attributes:
        source: modality of the image given; None for a report.
        shrunk: the image given is `SHRINKING` times smaller than the phantom's.
        target: modality of the image to be drawn.
    """

    type: TaskType
    text: str
    source: str | None
    target: str
    shrunk: bool = False


def instructions(phantom: Phantom, rng: np.random.Generator) -> list[Instruction]:
    """Every drawing that makes sense for a phantom, each in one of several wordings."""

    def wording(kind: TaskType) -> str:
        texts = INSTRUCTIONS[kind]
        return texts[int(rng.integers(len(texts)))]

    found = []
    if "CT" in phantom.images:
        found.append(Instruction(TaskType.CT_TO_MRI, wording(TaskType.CT_TO_MRI), "CT", "MRI"))
        found.append(Instruction(TaskType.MRI_TO_CT, wording(TaskType.MRI_TO_CT), "MRI", "CT"))
        found.append(Instruction(TaskType.SUPER_RESOLUTION, wording(TaskType.SUPER_RESOLUTION), "MRI", "MRI", True))
    drawn = [modality for modality in phantom.images if modality in ("CT", "MRI", "X-ray")]
    found += [Instruction(TaskType.RECONSTRUCTION, wording(TaskType.RECONSTRUCTION), name, name) for name in drawn]
    if "X-ray" in phantom.images:
        text = wording(TaskType.REPORT_TO_CXR).format(chest_report(phantom.finding, rng))
        found.append(Instruction(TaskType.REPORT_TO_CXR, text, None, "X-ray"))
    return found


def shrink(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(S, S, 3) -> (S/4, S/4, 3), each pixel the mean of those it covers."""
    return np.rint(downscale_local_mean(pixels.astype(np.float64), (SHRINKING, SHRINKING, 1))).astype(np.uint8)
