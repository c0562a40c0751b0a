"""Phi-4's and Qwen2.5's tokenizers: byte-level BPE as the slow `GPT2Tokenizer` and `Qwen2Tokenizer` used it."""

from __future__ import annotations

import json

from healthgpt.tokenization.settings import TokenizerSettings
from healthgpt.tokenization.slow import SlowTokenizer


class BytePairTokenizer(SlowTokenizer):
    """Byte-level BPE over `vocab.json` and `merges.txt` (what slow tokenizers read), else over `tokenizer.json`."""

    def __init__(self, settings: TokenizerSettings):
        from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

        folder = settings.folder
        fast = Tokenizer.from_file(str(folder / "tokenizer.json")) if (folder / "tokenizer.json").is_file() else None
        if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
            self._model = models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt"))
            self._vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
        elif fast is not None:
            self._model = fast.model
            self._vocabulary = fast.get_vocab(with_added_tokens=False)
        else:
            raise FileNotFoundError(f"{folder}: neither vocab.json with merges.txt nor tokenizer.json is there")
        if settings.tokenizer_class == "Qwen2Tokenizer":
            if fast is None:
                raise FileNotFoundError(f"{folder / 'tokenizer.json'}: no such file; a Qwen2Tokenizer needs it")
            self._split = fast.pre_tokenizer
            self._normalizer = fast.normalizer or normalizers.NFC()
            self.separator = ""
        else:
            self._split = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
            self._normalizer = None
        self._decoder = decoders.ByteLevel()
        self._pieces = {token_id: piece for piece, token_id in self._vocabulary.items()}
        super().__init__(settings)

    def vocabulary(self) -> dict[str, int]:
        return self._vocabulary

    def opening(self) -> str:
        return " " if self.settings.add_prefix_space and self.settings.tokenizer_class == "GPT2Tokenizer" else ""

    def encode_segment(self, text: str) -> list[int]:
        if self._normalizer is not None:
            text = self._normalizer.normalize_str(text)
        words = (word for word, _ in self._split.pre_tokenize_str(text))
        return [token.id for word in words for token in self._model.tokenize(word)]

    def segment_text(self, ids: list[int]) -> str:
        # Ids between the vocabulary's end and the matrix's (padding rows) have no piece and no text.
        return self._decoder.decode([self._pieces[i] for i in ids if i in self._pieces])
