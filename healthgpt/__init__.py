"""HealthGPT: one medical vision-language model that understands images and makes them.

    from healthgpt import HealthGPT

    model = HealthGPT.from_pretrained("nano")
    model.answer("Is there a pleural effusion?", "chest.png")
    model.draw("Turn this CT into an MRI.", "ct.png").save("mri.png")

Importing the package loads nothing heavy; its names load on first use.
"""

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from healthgpt.exchange import Answer, Drawing, Request
    from healthgpt.pipeline import HealthGPT
    from healthgpt.streaming import PartialDrawing
    from healthgpt.tasks import Task, TaskType

__version__ = "0.1.0"
__all__ = ["Answer", "Drawing", "HealthGPT", "PartialDrawing", "Request", "Task", "TaskType", "__version__"]

_HOMES = {
    "HealthGPT": "pipeline",
    "Answer": "exchange",
    "Drawing": "exchange",
    "Request": "exchange",
    "PartialDrawing": "streaming",
    "Task": "tasks",
    "TaskType": "tasks",
}

# peft imports bitsandbytes where that is installed, which then warns, in every process, of a kernel that only its 4-bit
# layers on a CPU would be faster with.
logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(
    lambda record: "gemm_4bit_forward" not in record.getMessage()
)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
