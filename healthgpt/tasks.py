"""The hard router's alphabet: the two tasks, and the kinds of work each of them covers (paper, Fig. 1).

Everything that differs between understanding and drawing an image (plugin, projector, depth of the vision features,
vocabulary rows) is chosen by a `Task`, never mixed per token.
"""

from __future__ import annotations

from enum import StrEnum


class Task(StrEnum):
    """What the model is asked to do with an image. The values name adapters, folders and record fields."""

    COMPREHENSION = "comprehension"
    GENERATION = "generation"


class TaskType(StrEnum):
    """The seven modalities that are understood and the five kinds of image that are made."""

    XRAY = "xray"
    CT = "ct"
    MRI = "mri"
    MICROSCOPY = "microscopy"
    OCT = "oct"
    FUNDUS = "fundus"
    ULTRASOUND = "ultrasound"

    CT_TO_MRI = "ct2mri"
    MRI_TO_CT = "mri2ct"
    SUPER_RESOLUTION = "super-resolution"
    RECONSTRUCTION = "reconstruction"
    REPORT_TO_CXR = "report-to-cxr"

    @property
    def task(self) -> Task:
        return Task.GENERATION if self in _GENERATION_TYPES else Task.COMPREHENSION


_GENERATION_TYPES = frozenset(
    {
        TaskType.CT_TO_MRI,
        TaskType.MRI_TO_CT,
        TaskType.SUPER_RESOLUTION,
        TaskType.RECONSTRUCTION,
        TaskType.REPORT_TO_CXR,
    }
)
