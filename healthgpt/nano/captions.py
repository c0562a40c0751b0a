"""Captions as the text tower of the nano ViT's training reads them.

Legend: N pictures, C captions of each, U different captions, T tokens of one.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from healthgpt.phi3_tokenizer import write_phi3_tokenizer
from healthgpt.tokenization import Span, load_tokenizer


class CaptionTable:
    """Every different caption once, tokenised by pieces learnt from these very captions.

    Attributes:
        texts: (N, C) int64, the place of each picture's captions in `ids`.
        ids: (U, T) int64; each row ends in `end_id`, which also pads it.
        end_id, vocabulary: what CLIP's text tower has to know.
    """

    def __init__(self, captions: np.ndarray, vocabulary: int, length: int):
        different, places = np.unique(captions, return_inverse=True)
        self.texts = torch.from_numpy(places.reshape(captions.shape).astype(np.int64))
        sentences = [str(caption) for caption in different]
        with tempfile.TemporaryDirectory(prefix="healthgpt-") as name:
            self.end_id = write_phi3_tokenizer(Path(name), sentences, vocabulary)
            tokenizer = load_tokenizer(Path(name))
        self.vocabulary = len(tokenizer)
        self.ids: Tensor = torch.full((len(sentences), length), self.end_id)
        for row, sentence in enumerate(sentences):
            ids = tokenizer.encode([Span(sentence, literal=True)])[: length - 1]
            self.ids[row, : len(ids)] = torch.tensor(ids)
        self._lengths = (self.ids != self.end_id).sum(dim=1) + 1

    def drawn(self, places: list[int]) -> Tensor:
        """(B,) one random caption of each picture, as places in `ids`."""
        texts = self.texts[places]
        return texts.gather(1, torch.randint(texts.shape[1], (len(texts), 1))).squeeze(1)

    def tokens(self, texts: Tensor) -> Tensor:
        """(B,) places in `ids` -> (B, L) tokens, without the padding that all of them share."""
        return self.ids[texts, : int(self._lengths[texts].max())]
