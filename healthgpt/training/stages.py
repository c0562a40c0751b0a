"""The stages as a table (paper 4.4, Tables 7 and 8): what each run routes, trains, reads and writes.

Stage 1 aligns each task's vision features with the LLM; generation also learns its plugin and the image tokens' rows,
which begin as one and the same mean and could not be told apart otherwise. Stage 2 trains word embeddings and output
head on a small mixture of both tasks, plugins frozen; they serve both tasks from then on. Stage 3 trains each task's
plugin and projector on instructions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from healthgpt.tasks import Task


class Part(StrEnum):
    """What a stage can train."""

    PROJECTOR = "projector"
    ADAPTER = "adapter"
    NEW_ROWS = "new_rows"  # embeddings and head of the image tokens alone
    VOCABULARY = "vocabulary"  # embeddings and head as a whole


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One run.

    Attributes:
        tasks: what is routed; with two, whole global batches alternate.
        trains: of those tasks; everything else is frozen.
        plugins_from: per task, the earlier run whose plugin this one begins with; without one it begins afresh.
        fusion_from: the earlier run whose embeddings and head it runs on; None is the base's, new rows at the mean.
    """

    name: str
    tasks: tuple[Task, ...]
    trains: frozenset[Part]
    plugins_from: Mapping[Task, str] = field(default_factory=dict)
    fusion_from: str | None = None

    @property
    def writes_plugins(self) -> bool:
        return bool(self.trains & {Part.PROJECTOR, Part.ADAPTER})

    @property
    def writes_fusion(self) -> bool:
        return bool(self.trains & {Part.NEW_ROWS, Part.VOCABULARY})


_C, _G = Task.COMPREHENSION, Task.GENERATION
STAGES: Mapping[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage(name="stage1_comprehension", tasks=(_C,), trains=frozenset({Part.PROJECTOR})),
        Stage(
            name="stage1_generation",
            tasks=(_G,),
            trains=frozenset({Part.PROJECTOR, Part.ADAPTER, Part.NEW_ROWS}),
        ),
        Stage(
            name="stage2_fusion",
            tasks=(_C, _G),
            trains=frozenset({Part.VOCABULARY}),
            plugins_from={_C: "stage1_comprehension", _G: "stage1_generation"},
            fusion_from="stage1_generation",
        ),
        Stage(
            name="stage3_comprehension",
            tasks=(_C,),
            trains=frozenset({Part.PROJECTOR, Part.ADAPTER}),
            plugins_from={_C: "stage1_comprehension"},
            fusion_from="stage2_fusion",
        ),
        Stage(
            name="stage3_generation",
            tasks=(_G,),
            trains=frozenset({Part.PROJECTOR, Part.ADAPTER}),
            plugins_from={_G: "stage1_generation"},
            fusion_from="stage2_fusion",
        ),
        # The paper's single-stage baseline (Table 5): both tasks at once, from nothing.
        Stage(name="mixed", tasks=(_C, _G), trains=frozenset({Part.PROJECTOR, Part.ADAPTER, Part.NEW_ROWS})),
    )
}


def published_from(run: str, part: Task | None) -> tuple[str, ...]:
    """The runs that a model's part may come from, latest first; `part` is a task's plugin, or None for fusion weights.

    The single-stage baseline is a model of its own and is never mixed with the stages' parts.
    """
    if run == "mixed":
        return ("mixed",)
    return ("stage2_fusion", "stage1_generation") if part is None else (f"stage3_{part}", f"stage1_{part}")
