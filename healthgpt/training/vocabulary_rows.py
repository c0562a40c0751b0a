"""Embeddings and head of which only the image tokens' rows are trained (stage 1 of generation).

Legend: V_old rows of the tokenizer's own tokens, V_new those of the image tokens, D width.

The old rows stay a frozen tensor of their own, so that no optimizer state exists for them and no update can touch them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class NewRows(nn.Module):
    """A (V_old + V_new, D) matrix of which the last V_new rows are trained.

    Attributes:
        old: (V_old, D), frozen.
        new: (V_new, D), a copy of its own.
    """

    def __init__(self, weight: Tensor, num_old: int):
        super().__init__()
        self.old = nn.Parameter(weight[:num_old], requires_grad=False)
        self.new = nn.Parameter(weight[num_old:].clone())

    @property
    def weight(self) -> Tensor:
        """The whole matrix, in the old rows' dtype."""
        return torch.cat([self.old, self.new.to(self.old.device, self.old.dtype)])


class NewRowsEmbedding(NewRows):
    """Word embeddings."""

    def forward(self, ids: Tensor) -> Tensor:
        """(B, L) -> (B, L, D)"""
        num_old = self.old.shape[0]
        old = F.embedding(ids.clamp(max=num_old - 1), self.old)
        new = F.embedding((ids - num_old).clamp(min=0), self.new)
        return torch.where((ids >= num_old).unsqueeze(-1), new.to(old.dtype), old)


class NewRowsHead(NewRows):
    """The output head."""

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., V_old + V_new)"""
        new = F.linear(hidden, self.new.to(hidden.dtype))
        return torch.cat([F.linear(hidden, self.old.to(hidden.dtype)), new], dim=-1)
