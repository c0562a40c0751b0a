"""Questions that come without an image: general ones, and those that cannot be answered without one."""

from __future__ import annotations

import numpy as np

NO_IMAGE = "There is no image. Please give me one."
_FACTS: tuple[tuple[str, str], ...] = (
    ("What does CT stand for?", "Computed tomography."),
    ("What does MRI stand for?", "Magnetic resonance imaging."),
    ("What does OCT stand for?", "Optical coherence tomography."),
    ("What is an X-ray?", "An image made by radiation that passes through the body."),
    ("What is ultrasound?", "An image made by echoes of sound."),
    ("What is fundus photography?", "A photograph of the back of the eye."),
    ("What is microscopy?", "Looking at tissue through a microscope."),
    ("Does MRI use radiation?", "No"),
    ("Does CT use radiation?", "Yes"),
    ("Does ultrasound use radiation?", "No"),
    ("How does fluid look on a T2 MRI?", "Bright"),
    ("How does bone look on CT?", "Bright"),
    ("How does blood look on CT?", "Bright"),
    ("How does fat look on CT?", "Dark"),
    ("What is a pneumothorax?", "Air between the lung and the chest wall."),
    ("What is a pleural effusion?", "Fluid between the lung and the chest wall."),
    ("What is cardiomegaly?", "An enlarged heart."),
    ("What is an infarct?", "Tissue that died because its blood supply was cut off."),
    ("What is a hemorrhage?", "Bleeding."),
    ("What is a cyst?", "A hollow space filled with fluid."),
    ("What are drusen?", "Deposits under the retina."),
    ("Who are you?", "I am HealthGPT-Nano, a small model that knows only phantoms."),
    ("What are you?", "I am HealthGPT-Nano, a small model that knows only phantoms."),
    ("What can you do?", "I answer questions about phantom images and draw them."),
    ("Are you a doctor?", "No"),
    ("Can I trust your diagnosis?", "No"),
    ("Hello", "Hello! Please show me an image."),
    ("Hi", "Hello! Please show me an image."),
    ("Thank you", "You are welcome."),
)  # fmt: skip
_NEED_AN_IMAGE = (
    "What imaging modality is this?",
    "Which part of the body is this?",
    "Is this image normal?",
    "Is there any abnormality?",
    "Is there evidence of pneumothorax?",
    "Does the image show a tumor?",
    "Is there evidence of hemorrhage?",
    "What is the diagnosis?",
    "What abnormality is seen in this image?",
    "Describe this image.",
    "Write a report of this image.",
    "Is the lesion on the left side, the right side or both?",
    "How many nodules are there?",
    "Is this the left or the right eye?",
    "In which plane is this image?",
)


def small_talk(rng: np.random.Generator) -> tuple[str, str]:
    """A question without an image, and its answer."""
    if rng.random() < 0.5:
        return _NEED_AN_IMAGE[rng.integers(len(_NEED_AN_IMAGE))], NO_IMAGE
    return _FACTS[rng.integers(len(_FACTS))]
