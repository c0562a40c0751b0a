"""What the nano base LLM learns from: conversations as it meets them later, and sequences to be repeated.

Legend: B batch, L tokens.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from healthgpt.files import require_file
from healthgpt.processor import IGNORED_LABEL, encode_conversation
from healthgpt.templates import TEMPLATES, Turn
from healthgpt.tokenization import SlowTokenizer, Span

TEMPLATE = TEMPLATES["phi3_instruct"]
_FIRST_PIECE = 259  # after <unk>, <s>, </s> and the 256 bytes
# Sequences are made of so many pieces only: with all of them, looking up was not learnt within 750 steps.
_PIECES = 128
# A sequence is of few different pieces, often in runs, as an image's background is: what follows a piece is then a
# matter of its place, and not of what followed its equal before.
_DIFFERENT = (8, 8, 32)
_LONGEST = 0.75  # part of the sequences that are as long as an image's codes
_RUNS, _NEW_RUN = 0.75, 0.4  # part of the sequences that are of runs; chance that a piece begins a new run
# Later, what is given is a ViT's features and what is drawn are codes, and a fresh plugin knows neither: things have to
# be found by their places alone. So noise covers most sequences, and what has been said of some is mere chance.
_NOISY, _FORGOTTEN = 0.75, 0.5
_MOST_NOISE = 3.0  # times what embeddings stray


class Encoded(NamedTuple):
    """Tokens to learn from.

    Attributes:
        labels: `IGNORED_LABEL` where nothing is to be learned.
        noise: how much, times what embeddings stray, is to be added to each token's; empty for nothing.
    """

    ids: list[int]
    labels: list[int]
    noise: list[float]


@dataclass(frozen=True, kw_only=True)
class Chat:
    """One conversation.

    Attributes:
        turns: question, answer, question, ...; of a drawing the instruction alone.
        drawn: the symbols (from 0) that are the answer to an instruction (`sketches.py`); None where answers are text.
    """

    turns: tuple[str, ...]
    drawn: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        answers = 1 if self.drawn else len(self.turns) // 2
        if not self.turns or len(self.turns) != 2 * answers - bool(self.drawn):
            raise ValueError(f"expected questions and answers in turn, found {list(self.turns)}")

    @property
    def last_question(self) -> str:
        """What the last answer, or the drawing, answers."""
        return self.turns[-1] if self.drawn else self.turns[-2]


def chat_line(chat: Chat) -> str:
    """A chat as a line of a file: JSON, what it does not have left out."""
    return json.dumps({key: value for key, value in asdict(chat).items() if value is not None}) + "\n"


def read_chats(path: Path) -> list[Chat]:
    """Reads a file of chats.

    Raises:
        FileNotFoundError, ValueError: no such file, or a line is something else.
    """
    chats = []
    for number, line in enumerate(require_file(path).read_text(encoding="utf-8").splitlines(), start=1):
        try:
            chats.append(Chat(**{key: tuple(value) for key, value in json.loads(line).items()}))
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}, line {number}: no chat ({error})") from None
    return chats


def encode_chat(tokenizer: SlowTokenizer, chat: Chat) -> Encoded:
    """One conversation as in inference, pieces for symbols; the labels are those of its answers."""
    turns = [Turn("assistant" if i % 2 else "user", (text,)) for i, text in enumerate(chat.turns)]
    if chat.drawn is None:
        return Encoded(*encode_conversation(tokenizer, TEMPLATE, turns), [])
    prompt, _ = encode_conversation(tokenizer, TEMPLATE, [*turns, Turn("assistant", ("",))])
    pieces = (_FIRST_PIECE + symbol for symbol in chat.drawn)
    answer = [*pieces, prompt[-1]]  # a drawing ends as a text does
    return Encoded([*prompt[:-1], *answer], [IGNORED_LABEL] * (len(prompt) - 1) + answer, [])


class Repeats:
    """Chats in which the user gives a random sequence of pieces and the assistant gives it back.

    The frozen LLM learns from them to look a sequence up, which later, with codes in place of pieces, is drawing.

    Args:
        shortest, longest: lengths of the sequences.
    """

    def __init__(self, tokenizer: SlowTokenizer, shortest: int, longest: int):
        self._lengths = shortest, longest
        self._vocabulary = len(tokenizer.vocabulary())
        self._pieces = torch.arange(_FIRST_PIECE, min(_FIRST_PIECE + _PIECES, self._vocabulary))
        self._head = tokenizer.encode([Span(TEMPLATE.system), Span(TEMPLATE.roles["user"])])
        self._turn = tokenizer.encode([Span(TEMPLATE.end), Span(TEMPLATE.roles["assistant"])], opens=False)
        self._end = tokenizer.encode([Span(TEMPLATE.end)], opens=False)

    def drawn(self, tail: list[int]) -> Encoded:
        """A new one; only the answer is to be learned.

        Args:
            tail: ids that stand between the sequence and the end of the user's turn.
        """
        shortest, longest = self._lengths
        length = longest if torch.rand(()) < _LONGEST else int(torch.randint(shortest, longest + 1, ()))
        different = _DIFFERENT[int(torch.randint(len(_DIFFERENT), ()))]
        pool = self._pieces[torch.randperm(len(self._pieces))[:different]]
        sequence = pool[torch.randint(len(pool), (length,))]
        if torch.rand(()) < _RUNS:
            starts = torch.rand(length) < _NEW_RUN
            sequence = sequence[starts.cumsum(0).clamp(max=length - 1)]
        pieces = said = sequence.tolist()
        given_noise = said_noise = 0.0
        noisy, forgotten = bool(torch.rand(()) < _NOISY), bool(torch.rand(()) < _FORGOTTEN)
        if forgotten:
            said = torch.randint(_FIRST_PIECE, self._vocabulary, (length,)).tolist()
        if noisy:
            given_noise = float(torch.rand(())) * _MOST_NOISE
            said_noise = float(torch.rand(())) * _MOST_NOISE * forgotten
        question = [*tail, *self._turn]
        return Encoded(
            [*self._head, *pieces, *question, *said, *self._end],
            [IGNORED_LABEL] * (len(self._head) + length + len(question)) + [*pieces, *self._end],
            [0.0] * len(self._head) + [given_noise] * length + [0.0] * len(question) + [said_noise] * length,
        )


def padded(examples: list[Encoded], pad_id: int, longest: int) -> dict[str, Tensor]:
    """input_ids, attention_mask, labels and noise (B, L), padded on the right, cut at `longest` tokens."""
    length = min(longest, max(len(example.ids) for example in examples))
    batch = {
        "input_ids": torch.full((len(examples), length), pad_id),
        "attention_mask": torch.zeros(len(examples), length, dtype=torch.long),
        "labels": torch.full((len(examples), length), IGNORED_LABEL),
        "noise": torch.zeros(len(examples), length),
    }
    for row, example in enumerate(examples):
        ids, labels, noise = example.ids[:length], example.labels[:length], example.noise[:length]
        batch["input_ids"][row, : len(ids)] = torch.tensor(ids)
        batch["attention_mask"][row, : len(ids)] = 1
        batch["labels"][row, : len(labels)] = torch.tensor(labels)
        batch["noise"][row, : len(noise)] = torch.tensor(noise)
    return batch
