"""Image-index tokens: the N codes of a VQGAN as extra words of the language model.

N + 3 tokens follow the tokenizer's own, in this order: `<start_index>`, `<idx_0>` ... `<idx_{N-1}>`, `<end_index>`,
`<pixel_newline>` (the last is in the released vocabulary and never used here). A drawing is codes in row-major order;
codes and ids are converted by arithmetic, never through text.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import LogitsProcessor

NUM_FRAME_TOKENS = 3  # start, end, newline


@dataclass(frozen=True)
class ImageVocabulary:
    """Where the image tokens stand.

    Attributes:
        start_id: id of `<start_index>`, which is the tokenizer's length before they were added.
        num_codes: N, the size of the VQGAN's codebook.
    """

    start_id: int
    num_codes: int

    @property
    def first_code_id(self) -> int:
        return self.start_id + 1

    @property
    def end_id(self) -> int:
        return self.first_code_id + self.num_codes

    @property
    def num_rows(self) -> int:
        """Rows that embeddings and head have with these tokens."""
        return self.start_id + self.num_codes + NUM_FRAME_TOKENS

    def tokens(self) -> list[str]:
        codes = (f"<idx_{i}>" for i in range(self.num_codes))
        return ["<start_index>", *codes, "<end_index>", "<pixel_newline>"]

    def indices(self, ids: Iterable[int]) -> list[int]:
        """Codebook indices of the code tokens among `ids`."""
        return [i - self.first_code_id for i in ids if self.first_code_id <= i < self.end_id]


class OnlyImageCodes(LogitsProcessor):
    """Lets nothing but codes be chosen, so that N steps give N codes.

    Scores have shape (B, V); everything outside the codes becomes -inf.
    """

    def __init__(self, vocabulary: ImageVocabulary):
        self._vocabulary = vocabulary

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        allowed = slice(self._vocabulary.first_code_id, self._vocabulary.end_id)
        masked = torch.full_like(scores, -torch.inf)
        masked[:, allowed] = scores[:, allowed]
        return masked


def with_rows(layer: nn.Embedding | nn.Linear, weight: Tensor) -> nn.Embedding | nn.Linear:
    """A frozen layer of the same kind around another (rows, D) weight, without a copy of it."""
    rows, width = weight.shape
    with torch.device("meta"):
        is_embedding = isinstance(layer, nn.Embedding)
        fresh = nn.Embedding(rows, width) if is_embedding else nn.Linear(width, rows, bias=False)
    fresh.weight = nn.Parameter(weight, requires_grad=False)
    return fresh


def extended_with_mean(weight: Tensor, vocabulary: ImageVocabulary) -> Tensor:
    """The base's (rows, D) matrix with every image token's row set to the mean of the tokenizer's own rows.

    As in the original, rows of the base beyond its tokenizer's length (padding) are overwritten as well, and the mean
    is taken in the weight's dtype.
    """
    old = weight[: vocabulary.start_id]
    extended = weight.new_empty(vocabulary.num_rows, weight.shape[1])
    extended[: vocabulary.start_id] = old
    extended[vocabulary.start_id :] = old.mean(dim=0, keepdim=True)
    return extended
