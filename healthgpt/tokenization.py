"""Text <-> token ids, exactly as the slow tokenizers gave them under which the released weights were trained.

Today's libraries ship only "fast" tokenizers. For Phi-3 and Phi-4 those split the very same prompt into other ids: they
drop the lone `▁` that opens a Phi-3 chunk, and group digits and newlines differently for Phi-4. So the slow
algorithms live on here, over the same vocabulary files:

* `SentencePieceTokenizer` (Phi-3, class `LlamaTokenizer`): `▁` + text, cut at the added tokens, each remaining
  segment through SentencePiece without its dummy prefix;
* `BytePairTokenizer` (Phi-4, class `GPT2Tokenizer`): GPT-2's split expression before the merges;
  (Qwen2.5, class `Qwen2Tokenizer`): the pre-tokenizer of `tokenizer.json`, which already agrees.

Added tokens are matched by this file and never by the library, so a `Span` can be marked `literal`: whatever a user
types, `<|end|>` and `<image>` included, is then letters and can neither end a turn nor open an image.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from healthgpt.files import read_json

SPACE_PIECE = "▁"  # SentencePiece's visible space
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"  # what an incomplete UTF-8 sequence decodes to

# Spaces that decoding removes where the tokenizer's configuration asks for a clean-up, in this order.
_CLEAN_UPS = (
    (" .", "."),
    (" ?", "?"),
    (" !", "!"),
    (" ,", ","),
    (" ' ", "'"),
    (" n't", "n't"),
    (" 'm", "'m"),
    (" 's", "'s"),
    (" 've", "'ve"),
    (" 're", "'re"),
)
# Text yet to come can change at most this many of the last characters (each clean-up reaches back one pattern).
_CLEAN_UP_REACH = sum(len(old) for old, _ in _CLEAN_UPS)

_SPECIAL_ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class Span(NamedTuple):
    """A stretch of prompt text; in a `literal` one the names of special tokens are ordinary letters."""

    text: str
    literal: bool = False


class AddedToken(NamedTuple):
    """A token matched as a whole before the vocabulary is asked; `lstrip`/`rstrip` swallow white space beside it."""

    id: int
    content: str
    lstrip: bool = False
    rstrip: bool = False


class SlowTokenizer(ABC):
    """The common part: added tokens cut the text, the subclass's vocabulary encodes what lies between.

    Attributes:
        added: every added token by its content.
        special_ids: ids that decoding leaves out.
    """

    separator = " "  # what decoding puts around a shown added token

    def __init__(self, settings: TokenizerSettings):
        self.settings = settings
        self.added = dict(settings.added)
        for content in settings.special_tokens:
            if content not in self.added:
                self.added[content] = AddedToken(self._vocabulary_id(content, settings.folder), content)
        self.special_ids = {self.added[content].id for content in settings.special_tokens}
        self._index_added()

    def _vocabulary_id(self, content: str, folder: Path) -> int:
        token_id = self.vocabulary().get(content)
        if token_id is None:
            raise ValueError(f"{folder}: special token {content!r} is in neither the vocabulary nor the added tokens")
        return token_id

    def _index_added(self) -> None:
        self._by_id = {token.id: token for token in self.added.values()}
        longest_first = sorted(self.added, key=len, reverse=True)
        self._added_pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    @abstractmethod
    def vocabulary(self) -> dict[str, int]:
        """Every ordinary token and its id."""

    @abstractmethod
    def encode_segment(self, text: str) -> list[int]:
        """Ids of text without added tokens."""

    @abstractmethod
    def segment_text(self, ids: list[int]) -> str:
        """The text of ids without added tokens."""

    def opening(self) -> str:
        """Text put before every encoded string."""
        return ""

    def __len__(self) -> int:
        """Number of different tokens, added ones included: the id that the next added token gets."""
        return len(self.vocabulary().keys() | self.added.keys())

    def add_special_tokens(self, contents: Iterable[str]) -> None:
        """Appends tokens at the end of the id range; decoding leaves them out.

        Raises:
            ValueError: one of them is there already.
        """
        next_id, known = len(self), self.vocabulary()
        for content in contents:
            if content in self.added or content in known:
                raise ValueError(f"{self.settings.folder}: token {content!r} is in the vocabulary already")
            self.added[content] = AddedToken(next_id, content)
            self.special_ids.add(next_id)
            next_id += 1
        self._index_added()

    def encode(self, spans: Sequence[Span]) -> list[int]:
        """Ids of the concatenated spans, opened by BOS where the tokenizer's configuration says so."""
        opening = [Span(self.opening())] if any(span.text for span in spans) else []
        segments = self._cut([*opening, *spans])
        ids: list[int] = []
        for segment in segments:
            ids.extend([segment.id] if isinstance(segment, AddedToken) else self.encode_segment(segment))
        ids = self._without_lone_opening(ids)
        return [self.bos_id, *ids] if self.settings.add_bos_token else ids

    def _without_lone_opening(self, ids: list[int]) -> list[int]:
        return ids

    @property
    def bos_id(self) -> int:
        bos = self.settings.roles.get("bos_token")
        if bos is None:
            raise ValueError(f"{self.settings.folder}: the tokenizer is to add a BOS token but names none")
        return self.added[bos].id

    def _cut(self, spans: Sequence[Span]) -> list[str | AddedToken]:
        """Cuts the spans' text at the added tokens found outside the literal spans, and strips beside them."""
        text = "".join(span.text for span in spans)
        protected, position = [], 0
        for span in spans:
            if span.literal:
                protected.append((position, position + len(span.text)))
            position += len(span.text)

        segments: list[str | AddedToken] = []
        start = search_from = 0
        while match := self._added_pattern.search(text, search_from):
            if any(match.start() < end and begin < match.end() for begin, end in protected):
                search_from = match.start() + 1
                continue
            segments += [text[start : match.start()], self.added[match.group()]]
            start = search_from = match.end()
        segments.append(text[start:])

        for i, segment in enumerate(segments):
            if not isinstance(segment, AddedToken):
                continue
            before, after = segments[i - 1], segments[i + 1]  # text stands on both sides of every added token
            if segment.lstrip and isinstance(before, str):
                segments[i - 1] = before.rstrip()
            if segment.rstrip and isinstance(after, str):
                segments[i + 1] = after.lstrip()
        return [segment for segment in segments if segment != ""]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of generated ids, special tokens left out; other added tokens stand between `separator`s."""
        pieces: list[str] = []
        run: list[int] = []
        for token_id in [i for i in ids if i not in self.special_ids] + [-1]:
            shown = self._by_id.get(token_id)
            if token_id >= 0 and shown is None:
                run.append(token_id)
                continue
            if run and (text := self.segment_text(run)):
                pieces.append(text)
            run = []
            if shown is not None:
                pieces.append(shown.content)
        text = self.separator.join(pieces)
        if self.settings.clean_up_spaces:
            for old, new in _CLEAN_UPS:
                text = text.replace(old, new)
        return text

    def settled(self, text: str) -> int:
        """How many leading characters of decoded `text` no further token can change (for streaming)."""
        end = len(text.rstrip(REPLACEMENT))
        return max(0, end - _CLEAN_UP_REACH) if self.settings.clean_up_spaces else end


class SentencePieceTokenizer(SlowTokenizer):
    """Phi-3's: SentencePiece without the dummy prefix (`legacy` false) or with it (`legacy` true)."""

    def __init__(self, settings: TokenizerSettings):
        from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2

        path = settings.folder / "tokenizer.model"
        proto = sentencepiece_model_pb2.ModelProto()
        try:
            proto.ParseFromString(path.read_bytes())
            if not settings.legacy:
                proto.normalizer_spec.add_dummy_prefix = False
            self._sp = SentencePieceProcessor(model_proto=proto.SerializeToString())
        except FileNotFoundError:
            raise FileNotFoundError(f"{path}: no such file; a {settings.tokenizer_class} needs it") from None
        except Exception as error:  # protobuf and SentencePiece raise types of their own
            raise ValueError(f"{path}: not a SentencePiece model ({error})") from None
        self._vocabulary = {self._sp.id_to_piece(i): i for i in range(self._sp.get_piece_size())}
        super().__init__(settings)
        unknown = settings.roles.get("unk_token")
        self._unknown = "<unk>" if unknown is None else unknown
        self._unknown_length = len(self._sp.encode(self._unknown))

    def vocabulary(self) -> dict[str, int]:
        return self._vocabulary

    def opening(self) -> str:
        return SPACE_PIECE if not self.settings.legacy and self.settings.add_prefix_space else ""

    def encode(self, spans: Sequence[Span]) -> list[int]:
        if not self.settings.legacy:
            spans = [span._replace(text=span.text.replace(SPACE_PIECE, " ")) for span in spans]
        return super().encode(spans)

    def encode_segment(self, text: str) -> list[int]:
        if self.settings.legacy or not text.startswith((SPACE_PIECE, " ")):
            return self._sp.encode(text)
        # SentencePiece strips leading spaces, so something that is no space has to stand before them.
        return self._sp.encode(self._unknown + text)[self._unknown_length :]

    def _without_lone_opening(self, ids: list[int]) -> list[int]:
        """The opening `▁` goes where a special token follows it at once."""
        lone = self._vocabulary.get(SPACE_PIECE)
        starts_special = len(ids) > 1 and ids[0] == lone and ids[1] in self.special_ids
        return ids[1:] if starts_special and not self.settings.legacy else ids

    def segment_text(self, ids: list[int]) -> str:
        pieces = [self._sp.id_to_piece(i) for i in ids]
        if self.settings.add_prefix_space:
            pieces[0] = pieces[0].removeprefix(SPACE_PIECE)
        return self._sp.decode(pieces)


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


class TokenizerSettings(NamedTuple):
    """What a base model's `tokenizer_config.json` says, with the defaults of the slow tokenizer classes."""

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
