"""What is asked of a model, and what comes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from healthgpt.images import ImageSource
from healthgpt.tasks import Task


@dataclass(frozen=True, kw_only=True)
class Request:
    """One thing to do, for `HealthGPT.run_batch`.

    Attributes:
        task: or its name.
        images: none, one or several, all belonging to the conversation's first turn.
        history: earlier (question, answer) turns.

    Raises:
        ValueError: a task that is none.
    """

    task: Task
    question: str
    images: Sequence[ImageSource] = ()
    history: Sequence[tuple[str, str]] = ()

    def __post_init__(self) -> None:
        if self.task not in set(Task):
            raise ValueError(f"task {self.task!r} is none of {', '.join(Task)}")
        object.__setattr__(self, "task", Task(self.task))


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An answer and how it came about.

    Attributes:
        token_ids: generated ids, with the stop token that ended them (there is none in a truncated answer).
        prompt_ids: the prompt's ids, -200 where an image stands.
        confidence: how probable the model held its first token, from 0 to 1 (softmax of its logits, before any penalty,
            in float32); None with sampling or beams.
        truncated: it ended at its longest, or because nobody wanted more of it, and not by itself.
    """

    text: str
    token_ids: list[int]
    prompt_ids: list[int]
    confidence: float | None = None
    truncated: bool = False


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A drawn image and how it came about.

    Attributes:
        indices: VQGAN codes in row-major order.
        token_ids: the codes' token ids and `<end_index>`.
        prompt_ids: the prompt's ids, -200 where an image stands.
    """

    image: Image.Image
    indices: list[int]
    token_ids: list[int]
    prompt_ids: list[int]
