"""A tokenizer laid out as Phi-3's, with pieces learnt from any text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

# Phi-3's added tokens after its vocabulary, and whether each swallows the white space to its right.
ADDED_TOKENS = (
    ("<|endoftext|>", False),
    ("<|assistant|>", True),
    *((f"<|placeholder{i}|>", True) for i in range(1, 5)),
    ("<|system|>", True),
    ("<|end|>", True),
    *((f"<|placeholder{i}|>", True) for i in range(5, 7)),
    ("<|user|>", True),
)


def write_phi3_tokenizer(folder: Path, sentences: Sequence[str], vocabulary: int) -> int:
    """Trains a SentencePiece model and lays it out as Phi-3's; returns the first added token's id.

    Args:
        vocabulary: its pieces, the 256 bytes included, which stand in for characters without a piece of their own;
            fewer where the sentences do not give as many.
    """
    from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

    folder.mkdir(parents=True, exist_ok=True)
    model = BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=model,
        model_type="bpe",
        vocab_size=vocabulary,
        hard_vocab_limit=False,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        num_threads=1,
        minloglevel=2,
    )
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    first_added = SentencePieceProcessor(model_proto=model.getvalue()).get_piece_size()
    added = [("<unk>", False), ("<s>", False)]
    entries = dict(enumerate(added)) | {first_added + i: entry for i, entry in enumerate(ADDED_TOKENS)}
    settings = {
        "tokenizer_class": "LlamaTokenizer",
        "legacy": False,
        "add_prefix_space": True,
        "add_bos_token": False,
        "clean_up_tokenization_spaces": False,
        "bos_token": "<s>",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "unk_token": "<unk>",
        "added_tokens_decoder": {
            str(i): {"content": content, "lstrip": False, "rstrip": rstrip, "special": True}
            for i, (content, rstrip) in entries.items()
        },
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    return first_added
