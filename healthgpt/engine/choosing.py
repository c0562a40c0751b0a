"""The next token out of the logits: the largest, or a sample, by the same rules as the oracle's.

Legend: B sequences, V vocabulary, T tokens generated so far.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import LogitsProcessor, RepetitionPenaltyLogitsProcessor

from healthgpt.decoding import Decoding, gumbel_noise, sampling_warpers
from healthgpt.vocabulary import ImageVocabulary, OnlyImageCodes


@dataclass(kw_only=True)
class Memory:
    """What a choice of one sequence depends on beside its logits.

    Attributes:
        tokens: chosen so far. generator: of its noise, None for greedy choice.
    """

    tokens: list[int] = field(default_factory=list)
    generator: torch.Generator | None = None


class Chooser:
    """Chooses tokens of many sequences at once.

    Attributes:
        greedy: nothing is drawn by chance. penalty: what logits of tokens are divided by that were chosen before.
        plain: the largest logit is the choice, whatever was chosen before.
    """

    def __init__(self, settings: Decoding, penalty: float, top_k: int, codes_of: ImageVocabulary | None):
        self._seed = settings.seed
        self._samples = settings.do_sample
        self.penalty = penalty
        self._penalty = RepetitionPenaltyLogitsProcessor(penalty) if penalty != 1 else None
        self._warpers: list[LogitsProcessor] = [OnlyImageCodes(codes_of)] if codes_of else []
        if self._samples:
            self._warpers += sampling_warpers(settings, top_k)
        self.greedy = not self._samples
        self.plain = self.greedy and self._penalty is None

    def memory(self) -> Memory:
        """That of a sequence before its first token."""
        if not self._samples:
            return Memory()
        seed = secrets.randbits(63) if self._seed is None else self._seed
        return Memory(generator=torch.Generator().manual_seed(seed))

    def __call__(self, logits: Tensor, memories: Sequence[Memory]) -> Tensor:
        """(B, V) -> (B,), computed in float32 whatever the logits are, as the oracle does."""
        logits = logits.float()
        if self._penalty is not None:
            rows = [self._penalised(row, memory) for row, memory in zip(logits.split(1), memories, strict=True)]
            logits = torch.cat(rows)
        nothing = logits.new_zeros(len(logits), 0, dtype=torch.long)
        for warper in self._warpers:
            logits = warper(nothing, logits)
        if self._samples:
            noise = [gumbel_noise(memory.generator, logits.shape[1]) for memory in memories]  # type: ignore[arg-type]
            logits = logits + torch.stack(noise).to(logits.device)
        return logits.argmax(dim=-1)

    def _penalised(self, logits: Tensor, memory: Memory) -> Tensor:
        assert self._penalty is not None
        ids = torch.tensor([memory.tokens], dtype=torch.long, device=logits.device)
        return self._penalty(ids, logits) if memory.tokens else logits


def refuse_nan(largest: Tensor, first_step: int) -> None:
    """Fails where a largest logit is no number.

    Args:
        largest: (B, T) of the steps from `first_step` on.

    Raises:
        FloatingPointError: names the step.
    """
    wrong = largest.isnan().any(dim=0)
    if bool(wrong.any()):
        step = first_step + int(wrong.int().argmax())
        raise FloatingPointError(f"the logits of step {step} are NaN: a weight is no number, or its dtype overflows")
