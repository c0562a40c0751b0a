"""The common part of the slow tokenizers: added tokens cut the text, a vocabulary encodes what lies between.

Added tokens are matched here and never by a library, so a `Span` can be marked `literal`: whatever a user types,
`<|end|>` and `<image>` included, is then letters and can neither end a turn nor open an image.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from healthgpt.tokenization.settings import AddedToken, TokenizerSettings

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


class Span(NamedTuple):
    """A stretch of prompt text; in a `literal` one the names of special tokens are ordinary letters."""

    text: str
    literal: bool = False


class SlowTokenizer(ABC):
    """A tokenizer over some vocabulary; subclasses encode and decode text without added tokens.

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

    def encode(self, spans: Sequence[Span], *, opens: bool = True) -> list[int]:
        """Ids of the concatenated spans, opened by BOS where the tokenizer's configuration says so.

        Args:
            opens: false for the rest of a text whose beginning has been encoded already.
        """
        opening = [Span(self.opening())] if opens and any(span.text for span in spans) else []
        segments = self._cut([*opening, *spans])
        ids: list[int] = []
        for segment in segments:
            ids.extend([segment.id] if isinstance(segment, AddedToken) else self.encode_segment(segment))
        ids = self._without_lone_opening(ids)
        return [self.bos_id, *ids] if opens and self.settings.add_bos_token else ids

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
