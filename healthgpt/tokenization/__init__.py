"""Text <-> token ids, exactly as the slow tokenizers gave them under which the released weights were trained.

Today's libraries ship only "fast" tokenizers. For Phi-3 and Phi-4 those split the very same prompt into other ids: they
drop the lone `▁` that opens a Phi-3 chunk, and group digits and newlines differently for Phi-4. So the slow
algorithms live on here, over the same vocabulary files:

* `SentencePieceTokenizer` (Phi-3, class `LlamaTokenizer`): `▁` + text, cut at the added tokens, each remaining
  segment through SentencePiece without its dummy prefix;
* `BytePairTokenizer` (Phi-4, class `GPT2Tokenizer`): GPT-2's split expression before the merges;
  (Qwen2.5, class `Qwen2Tokenizer`): the pre-tokenizer of `tokenizer.json`, which already agrees.
"""

from pathlib import Path

from healthgpt.tokenization.byte_pair import BytePairTokenizer
from healthgpt.tokenization.sentence_piece import SentencePieceTokenizer
from healthgpt.tokenization.settings import read_settings
from healthgpt.tokenization.slow import SlowTokenizer, Span

__all__ = ["SlowTokenizer", "Span", "load_tokenizer"]


def load_tokenizer(folder: Path) -> SlowTokenizer:
    """Reads the tokenizer of a base model's folder.

    Raises:
        FileNotFoundError: a file that the tokenizer's class needs is missing.
        ValueError: a file cannot be read, or the class is none of Llama's, GPT-2's and Qwen2's.
    """
    settings = read_settings(folder)
    if settings.tokenizer_class == "LlamaTokenizer":
        return SentencePieceTokenizer(settings)
    return BytePairTokenizer(settings)
