"""What a newcomer can try: synthetic images that come with the package, and what to ask of each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_FOLDER = Path(__file__).parents[2] / "examples"


@dataclass(frozen=True, kw_only=True)
class Example:
    """One card of the gallery.

    Attributes:
        label: what it shows, in a few words.
        image: None for an instruction that needs none. window: in which it is best seen.
    """

    label: str
    instruction: str
    image: Path | None = None
    window: str = "auto"


EXAMPLES = (
    Example(
        label="Chest X-ray: what is wrong?",
        instruction="What abnormality is seen in this image?",
        image=_FOLDER / "chest_xray.png",
    ),
    Example(label="Brain CT to MRI", instruction="Turn this CT into an MRI.", image=_FOLDER / "brain_ct.png"),
    Example(label="Brain MRI to CT", instruction="Turn this MRI into a CT.", image=_FOLDER / "brain_mri.png"),
    Example(
        label="Head CT volume, 20 slices",
        instruction="What abnormality is seen in this image?",
        image=_FOLDER / "head_ct.nii.gz",
        window="brain",
    ),
    Example(label="Fundus: count lesions", instruction="How many hemorrhages are there?", image=_FOLDER / "fundus.png"),
    Example(label="OCT: describe it", instruction="Describe this image.", image=_FOLDER / "oct.png"),
    Example(label="Microscopy: diagnosis", instruction="What is the diagnosis?", image=_FOLDER / "microscopy.png"),
    Example(
        label="A report to an X-ray",
        instruction="Draw the chest X-ray of this report: The heart is enlarged.",
    ),
)
