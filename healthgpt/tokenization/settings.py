"""What a base model's `tokenizer_config.json` says, with the defaults that the slow tokenizer classes had."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from healthgpt.files import read_json

_SPECIAL_ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class AddedToken(NamedTuple):
    """A token matched as a whole before the vocabulary is asked; `lstrip`/`rstrip` swallow white space beside it."""

    id: int
    content: str
    lstrip: bool = False
    rstrip: bool = False


class TokenizerSettings(NamedTuple):
    """One tokenizer's settings; `roles` are the special tokens by role, `special_tokens` all that decoding skips."""

    folder: Path
    tokenizer_class: str
    added: dict[str, AddedToken]
    roles: dict[str, str]
    special_tokens: list[str]
    legacy: bool
    add_prefix_space: bool
    add_bos_token: bool
    clean_up_spaces: bool


_CLASS_DEFAULTS: dict[str, dict[str, Any]] = {
    "LlamaTokenizer": {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "legacy": True,
        "add_prefix_space": True,
        "add_bos_token": True,
    },
    "GPT2Tokenizer": {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"},
    "Qwen2Tokenizer": {
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "clean_up_tokenization_spaces": False,
    },
}


def read_settings(folder: Path) -> TokenizerSettings:
    """Reads `tokenizer_config.json` (and `added_tokens.json` where older folders keep the added tokens there)."""
    config = read_json(folder / "tokenizer_config.json")
    tokenizer_class = str(config.get("tokenizer_class")).removesuffix("Fast")
    if tokenizer_class not in _CLASS_DEFAULTS:
        raise ValueError(
            f"{folder / 'tokenizer_config.json'}: tokenizer_class {config.get('tokenizer_class')!r} is not supported; "
            f"expected one of {', '.join(_CLASS_DEFAULTS)}"
        )
    config = _CLASS_DEFAULTS[tokenizer_class] | config
    added = {
        entry["content"]: AddedToken(int(i), entry["content"], bool(entry.get("lstrip")), bool(entry.get("rstrip")))
        for i, entry in config.get("added_tokens_decoder", {}).items()
    }
    if (folder / "added_tokens.json").is_file():
        for content, token_id in read_json(folder / "added_tokens.json").items():
            added.setdefault(content, AddedToken(token_id, content))
    roles = {role: _content(config[role]) for role in _SPECIAL_ROLES if config.get(role) is not None}
    special = [*roles.values(), *map(_content, config.get("additional_special_tokens") or [])]
    return TokenizerSettings(
        folder=folder,
        tokenizer_class=tokenizer_class,
        added=added,
        roles=roles,
        special_tokens=list(dict.fromkeys(special)),
        legacy=config.get("legacy") is not False,
        add_prefix_space=bool(config.get("add_prefix_space")),
        add_bos_token=bool(config.get("add_bos_token")),
        clean_up_spaces=config.get("clean_up_tokenization_spaces") is not False,
    )


def _content(token: str | dict[str, Any]) -> str:
    return token if isinstance(token, str) else token["content"]
