"""Embeddings and head of which only the image tokens' rows are trained (stage 1 of generation).

Legend: V_old rows of the tokenizer's own tokens, V_new those of the image tokens, D width.

The old rows stay a frozen tensor of their own, so that no optimizer state exists for them and no update can touch them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class NewRowsEmbedding(nn.Module):
    """An embedding of V_old frozen and V_new trainable rows."""

    def __init__(self, weight: Tensor, num_old: int):
        super().__init__()
        self.old = nn.Parameter(weight[:num_old], requires_grad=False)
        self.new = nn.Parameter(weight[num_old:].clone())

    @property
    def weight(self) -> Tensor:
        """The whole (V_old + V_new, D) matrix."""
        return joined(self.old, self.new)

    def forward(self, ids: Tensor) -> Tensor:
        """(B, L) -> (B, L, D)"""
        num_old = self.old.shape[0]
        old = F.embedding(ids.clamp(max=num_old - 1), self.old)
        new = F.embedding((ids - num_old).clamp(min=0), self.new)
        return torch.where((ids >= num_old).unsqueeze(-1), new.to(old.dtype), old)


class NewRowsHead(nn.Module):
    """An output head of V_old frozen and V_new trainable rows."""

    def __init__(self, weight: Tensor, num_old: int):
        super().__init__()
        self.old = nn.Parameter(weight[:num_old], requires_grad=False)
        self.new = nn.Parameter(weight[num_old:].clone())

    @property
    def weight(self) -> Tensor:
        """The whole (V_old + V_new, D) matrix."""
        return joined(self.old, self.new)

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., V_old + V_new)"""
        new = F.linear(hidden, self.new.to(hidden.dtype))
        return torch.cat([F.linear(hidden, self.old.to(hidden.dtype)), new], dim=-1)


def joined(old: Tensor, new: Tensor) -> Tensor:
    return torch.cat([old, new.to(old.device, old.dtype)])
