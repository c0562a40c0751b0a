"""One training step's loss: next-token cross-entropy on the supervised positions, without ever making full logits.

Legend: B batch, L tokens, D width of the LLM, S supervised positions of the batch, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from healthgpt.model import HealthGPTForConditionalGeneration
from healthgpt.processor import IGNORED_LABEL
from healthgpt.tasks import Task

# Positions whose logits exist at once: 1,024 x 40,206 in float32 are 165 MB for M3.
POSITIONS_AT_ONCE = 1024


class StageModel(nn.Module):
    """The network with its loss, as the trainer calls it.

    Attributes:
        tokens_seen: tokens that went through this process, padding excluded.
    """

    def __init__(self, network: HealthGPTForConditionalGeneration):
        super().__init__()
        self.network = network
        self.config = network.config
        self.tokens_seen = torch.zeros((), dtype=torch.long)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor,
        task: str,
        pixel_values: Tensor | None = None,
        label_weights: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
    ) -> dict[str, Any]:
        """
        Args:
            input_ids, attention_mask, labels: (B, L), labels -100 where nothing is to be learned.
            pixel_values: (N, 3, S, S), the images of the whole batch in reading order.
            label_weights: (B, L), how much each label counts; None counts all alike.
            num_items_in_batch: supervised tokens of the global batch; None takes this batch's own.

        Returns:
            {"loss": the weighted sum of cross-entropies over num_items_in_batch}
        """
        network = self.network
        network.route(Task(task))
        if self.training:
            self.tokens_seen = self.tokens_seen.to(attention_mask.device) + attention_mask.sum()
        embeds = network.embed_prompt(input_ids, pixel_values)
        body = network.model.language_model
        hidden = body(inputs_embeds=embeds, attention_mask=attention_mask, use_cache=False).last_hidden_state
        targets = labels[:, 1:]
        supervised = targets != IGNORED_LABEL
        weights = label_weights[:, 1:][supervised] if label_weights is not None else None
        total = summed_cross_entropy(hidden[:, :-1][supervised], targets[supervised], network.lm_head, weights)
        count = num_items_in_batch if num_items_in_batch is not None else supervised.sum()
        return {"loss": total / count}


def summed_cross_entropy(hidden: Tensor, targets: Tensor, head: nn.Module, weights: Tensor | None = None) -> Tensor:
    """Sum of -w log p(target), logits made chunk by chunk, and again in the backward pass: (S, D), (S,) -> ().

    Args:
        weights: w, (S,); None for 1.
    """

    def chunk_loss(part: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
        logits = head(part).float()
        if weight is None:
            return F.cross_entropy(logits, target, reduction="sum")
        return (weight * F.cross_entropy(logits, target, reduction="none")).sum()

    total = hidden.new_zeros((), dtype=torch.float32)
    for start in range(0, len(targets), POSITIONS_AT_ONCE):
        chunk = slice(start, start + POSITIONS_AT_ONCE)
        total = total + checkpoint(
            chunk_loss,
            hidden[chunk],
            targets[chunk],
            weights[chunk] if weights is not None else None,
            use_reentrant=False,
        )
    return total
