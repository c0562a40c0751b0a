"""The paper's composite scores (arXiv 2502.09838, Tables 4, 5 and 10), as its tables of single figures give them.

SSIM and LPIPS are times 100, PSNR is in dB, MSE is of grey values from 0 to 255.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean


@dataclass(frozen=True, kw_only=True)
class Similarity:
    """How near drawings of one task are to the truth, in the paper's units."""

    ssim: float
    psnr: float
    mse: float
    lpips: float | None = None


def similarity_score(task: Similarity) -> float:
    """The mean of SSIM, PSNR, 100 - MSE and, where it is known, 100 - LPIPS."""
    parts = [task.ssim, task.psnr, 100 - task.mse]
    return fmean(parts if task.lpips is None else [*parts, 100 - task.lpips])


def tasks_score(tasks: Sequence[Similarity]) -> float:
    """RECOM (reconstruction) and MTRANS (modality conversion): the mean over their four tasks."""
    return fmean(map(similarity_score, tasks))


def generation_score(reconstruction: float, conversion: float, super_resolution: float) -> float:
    """Table 10's Gen.: the mean of RECOM, MTRANS and SR."""
    return fmean((reconstruction, conversion, super_resolution))


# Columns of Table 1 that Table 10's Comp. is the mean of.
COMPREHENSION_COLUMNS = ("vqa-rad/all", "slake/all", "pathvqa/all", "mmmu-med/all", "omnimedvqa/all")


def comprehension_score(columns: Mapping[str, float]) -> float:
    """Table 10's Comp.: the mean of VQA-RAD, SLAKE and PathVQA over all questions, MMMU-Med and OmniMedVQA.

    Raises:
        ValueError: a column is missing.
    """
    if missing := [name for name in COMPREHENSION_COLUMNS if name not in columns]:
        raise ValueError(f"the composite of comprehension lacks {', '.join(missing)}")
    return fmean(columns[name] for name in COMPREHENSION_COLUMNS)
