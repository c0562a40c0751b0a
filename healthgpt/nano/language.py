"""Trains the nano base LLM: a tokenizer and a Phi-3, from scratch, on chats and on sequences to be repeated."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, set_seed

from healthgpt.nano.chats import TEMPLATE, Encoded, Repeats, encode_chat, padded, read_chats
from healthgpt.nano.optimizer import MuonWithAdamW
from healthgpt.nano.part import Part, PartSettings, finished, round_to_half, train_part
from healthgpt.phi3_tokenizer import write_phi3_tokenizer
from healthgpt.processor import IGNORED_LABEL
from healthgpt.random_model import RandomShape, new_base, save_model
from healthgpt.tokenization import load_tokenizer

NAME = "base"
_STREAM, _HEAD_INPUT = 0.5, 2.0  # powers of two, so that nothing is rounded
_TAIL = 32  # tokens of a question, at most, between a sequence and its repetition
_SYSTEM_COUNT = (
    1000  # times that the tokenizer reads the system prompt: it is in every example, and should be few pieces
)
_SCORED_CHATS, _SCORED_REPEATS, _SCORED_AT_ONCE = 128, 64, 32


@dataclass(frozen=True, kw_only=True)
class BaseSettings(PartSettings):
    """How the base LLM is trained.

    Attributes:
        vocabulary: pieces of the tokenizer, bytes included and added tokens not.
        matrix_decay: weight decay of the blocks' matrices.
        repeats: part of the batches that are sequences to be repeated, of `shortest` to `longest` pieces.
        answers_only: part of the chats of which the answers alone are to be learned, and not the questions too.
        quiet: part of the steps before there is noise on sequences; until they are learned it would only be in the way.
    """

    steps: int = 5000
    batch_size: int = 24
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    matrix_decay: float = 0.5
    vocabulary: int = 1000
    width: int = 256
    layers: int = 4
    heads: int = 4
    mlp: int = 768
    repeats: float = 0.5
    answers_only: float = 0.75
    quiet: float = 0.6
    shortest: int = 8
    longest: int = 64
    score_every: int = 100
    max_length: int = 256

    def shape(self) -> RandomShape:
        """The LLM's sizes; its vocabulary is as large as the tokenizer's."""
        return RandomShape(
            width=self.width,
            layers=self.layers,
            heads=self.heads,
            kv_heads=self.heads,
            mlp=self.mlp,
            vocabulary=0,
            init_std=self.width**-0.5,
        )


class BaseInTraining(nn.Module):
    """The LLM with nothing but its loss as output, as logits would be copied in vain.

    Attributes:
        steps_done: in training; checkpoints hold it.
        quiet_steps: those without noise.
    """

    steps_done: Tensor

    def __init__(self, model: PreTrainedModel, quiet_steps: int):
        super().__init__()
        self.model = model
        self.quiet_steps = quiet_steps
        self.register_buffer("steps_done", torch.zeros((), dtype=torch.long))

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """(B, L) each -> the mean over the examples of each one's mean loss.

        Weighed by tokens, a sequence of 64 to be repeated would count as much as thirty answers of yes or no.
        """
        embeddings = self.model.get_input_embeddings()
        embeds = embeddings(input_ids)
        if self.steps_done >= self.quiet_steps:
            strayed = embeddings.weight.detach().std() * noise[..., None]
            embeds = embeds + strayed * torch.randn_like(embeds)
        self.steps_done += self.training
        out = self.model(inputs_embeds=embeds, attention_mask=attention_mask, use_cache=False)
        logits = out.logits[:, :-1].float()
        targets = labels[:, 1:]
        losses = nn.functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none")  # 0 where ignored
        counts = (targets != IGNORED_LABEL).sum(dim=1).clamp(min=1)
        return {"loss": (losses.sum(dim=1) / counts).mean()}


class ChatBatches:
    """Batches from places in a list of chats; some batches give way to sequences to be repeated.

    Attributes:
        chats: encoded, with the ids of the last question beside them.
    """

    def __init__(self, chats: list[tuple[Encoded, list[int]]], repeats: Repeats, settings: BaseSettings, pad_id: int):
        self.chats = chats
        self._repeats = repeats
        self._settings = settings
        self._pad_id = pad_id

    def __call__(self, places: list[int]) -> dict[str, Tensor]:
        repeated = bool(torch.rand(()) < self._settings.repeats)
        examples = [self._example(place, repeated) for place in places]
        return padded(examples, self._pad_id, self._settings.max_length)

    def fixed(self, places: list[int], repeated: bool) -> dict[str, Tensor]:
        """A batch of one kind, always the same, with answers alone as labels: for scores."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            examples = [self._example(i, True) if repeated else self.chats[i][0] for i in places]
        return padded(examples, self._pad_id, self._settings.max_length)

    def _example(self, place: int, repeated: bool) -> Encoded:
        chat, question = self.chats[place]
        # A question follows the sequence, as one follows an image: what is looked up is not always equally far.
        if repeated:
            return self._repeats.drawn(question[-_TAIL:])
        if torch.rand(()) < self._settings.answers_only:
            return chat
        # Every token is to be learned: this is where the model learns the language.
        return Encoded(chat.ids, chat.ids, [])


def train_base(data: Path, output: Path, settings: BaseSettings = BaseSettings()) -> Path:
    """Trains tokenizer and LLM on a file of chats; returns their folder, OUTPUT/base."""
    if folder := finished(output, NAME):
        return folder
    with tempfile.TemporaryDirectory(prefix="healthgpt-") as name:
        return train_part(_part(data, output, settings, Path(name)))


def _part(data: Path, output: Path, settings: BaseSettings, folder: Path) -> Part:
    """Everything up to the training; the tokenizer, which is the same at every try, is written into `folder`."""
    chats = read_chats(data)
    sentences = sorted({text for chat in chats for text in chat.turns})
    if not sentences:
        raise ValueError(f"{data}: no chats in it")
    system = TEMPLATE.system.partition("\n")[2].removesuffix(TEMPLATE.end)
    sentences += [system] * _SYSTEM_COUNT
    first_added = write_phi3_tokenizer(folder, sentences, settings.vocabulary)
    tokenizer = load_tokenizer(folder)
    set_seed(settings.seed)
    base = new_base(folder, settings.shape(), first_added)
    base.set_attn_implementation("eager")  # on a CPU, for short texts, faster than the fused one
    if settings.compile:
        for block in base.model.layers:
            block.compile(dynamic=True)
    model = BaseInTraining(base, round(settings.quiet * settings.steps))
    encoded = [(encode_chat(tokenizer, chat), tokenizer.encode_segment(chat.last_question)) for chat in chats]
    cut = len(encoded) - max(1, len(encoded) // 50)
    repeats = Repeats(tokenizer, settings.shortest, settings.longest)
    batches, held_out = (ChatBatches(part, repeats, settings, first_added) for part in (encoded[:cut], encoded[cut:]))
    return Part(
        name=NAME,
        output=output,
        data=data,
        settings=settings,
        model=model,
        num_examples=cut,
        collate=batches,
        score=lambda: score_base(model, held_out),
        write=lambda target: write_base(base, folder, target),
        optimizer=MuonWithAdamW(
            model,
            base.model.layers,
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            matrix_decay=settings.matrix_decay,
        ),
        lengths=[len(chat.ids) for chat, _ in encoded[:cut]],
    )


def write_base(model: PreTrainedModel, tokenizer: Path, folder: Path) -> None:
    """Writes the LLM's folder, weights rounded to float16 and stored as float32."""
    ease_new_rows(model)
    round_to_half(model)
    shutil.copytree(tokenizer, folder)
    save_model(model, folder)


def ease_new_rows(model: PreTrainedModel) -> None:
    """The same function (but for the norms' epsilon) in weights with which rows that are added later learn faster.

    An optimizer's steps are of one size whatever the weights' is: rows of the embeddings have half as far to go where
    the stream that blocks read from and write to is half as large, and so have rows of the head where their input is
    twice as large.
    """
    inner = model.model
    with torch.no_grad():
        inner.norm.weight.mul_(_HEAD_INPUT)
        model.lm_head.weight.div_(_HEAD_INPUT)
        inner.embed_tokens.weight.mul_(_STREAM)
        for block in inner.layers:
            block.self_attn.o_proj.weight.mul_(_STREAM)
            block.mlp.down_proj.weight.mul_(_STREAM)


def score_base(model: BaseInTraining, chats: ChatBatches) -> dict[str, float]:
    """Loss and accuracy of the answers' tokens, of held-out chats and of sequences that are repeated."""
    figures = {}
    for name, repeated, number in (("chat", False, _SCORED_CHATS), ("repeat", True, _SCORED_REPEATS)):
        places = [i % len(chats.chats) for i in range(number if repeated else min(number, len(chats.chats)))]
        losses, hits = [], []
        for start in range(0, len(places), _SCORED_AT_ONCE):
            batch = chats.fixed(places[start : start + _SCORED_AT_ONCE], repeated)
            loss, hit = _next_tokens(model.model, batch)
            losses.append(loss)
            hits.append(hit)
        figures[f"{name}_loss"] = torch.cat(losses).mean().item()
        figures[f"{name}_accuracy"] = torch.cat(hits).float().mean().item()
    return figures


def _next_tokens(model: PreTrainedModel, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The loss of every label of a batch, and whether its token is the likeliest."""
    batch = {key: value.to(model.device) for key, value in batch.items() if key != "noise"}
    labels = batch.pop("labels")[:, 1:]
    logits = model(**batch).logits[:, :-1].float()
    counted = labels != IGNORED_LABEL
    losses = nn.functional.cross_entropy(logits[counted], labels[counted], reduction="none")
    return losses, logits[counted].argmax(dim=1) == labels[counted]
