"""Questions and images -> what the model takes: reference-exact token ids with image placeholders, and pixels.

Legend: B batch, L tokens, P patches per image, N images, S side of the ViT's input in pixels.

A prompt has two forms. `prompt_ids` is the original's: one -200 where an image stands. Expanded, each -200 becomes P of
them, one for each patch feature that the model will put there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from healthgpt.files import require_file
from healthgpt.images import ImageSource, pad_to_square, read_image
from healthgpt.tasks import Task
from healthgpt.templates import ChatTemplate, ImageSlot, Turn, is_unicode, user_turn
from healthgpt.tokenization import SlowTokenizer, Span
from healthgpt.vocabulary import ImageVocabulary

IMAGE_PLACEHOLDER = -200
IGNORED_LABEL = -100


@dataclass(frozen=True)
class Prompt:
    """One question, ready for the model.

    Attributes:
        task: who is to answer it.
        ids: token ids with one `IMAGE_PLACEHOLDER` per image.
        pixels: (N, 3, S, S) float32, or None for a prompt without images.
    """

    task: Task
    ids: list[int]
    pixels: Tensor | None


class ClipInput:
    """An image on its way into the ViT: padded to a square with CLIP's mean colour, resized, normalised.

    Raises:
        FileNotFoundError: the ViT's folder has no `preprocessor_config.json`.
    """

    def __init__(self, vit_folder: Path):
        from transformers import CLIPImageProcessorPil

        require_file(vit_folder / "preprocessor_config.json")
        self._clip = CLIPImageProcessorPil.from_pretrained(vit_folder)
        red, green, blue = (int(mean * 255) for mean in self._clip.image_mean)
        self._background = (red, green, blue)

    def pixels(self, image: ImageSource) -> Tensor:
        """What the ViT takes: (3, S, S) float32."""
        square = pad_to_square(read_image(image), self._background)
        return torch.from_numpy(np.asarray(self._clip(images=square)["pixel_values"][0], dtype=np.float32))

    def picture(self, image: ImageSource) -> Image.Image:
        """The same as a picture, before it is normalised."""
        square = pad_to_square(read_image(image), self._background)
        values = self._clip(images=square, do_rescale=False, do_normalize=False)["pixel_values"][0]
        return Image.fromarray(np.asarray(values).transpose(1, 2, 0).astype(np.uint8))


class HealthGPTProcessor:
    """Tokenizer, chat template and image preprocessing of one model.

    Attributes:
        image_vocabulary: the image tokens, or None where the model has none.
    """

    def __init__(
        self,
        tokenizer: SlowTokenizer,
        template: ChatTemplate,
        vit_folder: Path,
        num_patches: int,
        num_image_tokens: int,
    ):
        self.tokenizer = tokenizer
        self.template = template
        self.num_patches = num_patches
        self.image_vocabulary: ImageVocabulary | None = None
        if num_image_tokens:
            self.image_vocabulary = ImageVocabulary(start_id=len(tokenizer), num_codes=num_image_tokens)
            tokenizer.add_special_tokens(self.image_vocabulary.tokens())
        self._clip = ClipInput(vit_folder)

    def prompt(
        self,
        task: Task,
        question: str,
        images: Sequence[ImageSource] = (),
        history: Sequence[tuple[str, str]] = (),
        pixels: Tensor | None = None,
    ) -> Prompt:
        """Builds the prompt of a question, images belonging to the conversation's first turn.

        Args:
            history: earlier (question, answer) turns.
            pixels: of these images, (N, 3, S, S), where another prompt has them already.

        Raises:
            ValueError, FileNotFoundError: an empty question, one that is no text, or an image that cannot be read.
        """
        for said in (question, *chain.from_iterable(history)):
            if not isinstance(said, str):
                raise ValueError(f"the question is {said!r}, expected text")
            if not is_unicode(said):
                raise ValueError(f"the question {said!a} holds half of a character, which no model can read")
        if not question.strip():
            raise ValueError("the question is empty")
        turns, num_images = [], len(images)
        for asked, answered in history:
            turns += [user_turn(asked, num_images), Turn("assistant", (answered,))]
            num_images = 0
        turns.append(user_turn(question, num_images))
        if images and pixels is None:
            pixels = torch.stack([self.pixels(image) for image in images])
        return Prompt(task, self.encode(turns, task), pixels)

    def encode(self, turns: Sequence[Turn], task: Task) -> list[int]:
        """Token ids of a conversation, open for the model's next turn: each chunk between images on its own.

        Raises:
            ValueError: generation without image tokens in the vocabulary.
        """
        if task is Task.GENERATION:
            self._drawing_vocabulary()
        rendered = self.template.render(turns, start_token="<start_index>" if task is Task.GENERATION else "")
        chunks: list[list[Span]] = [[]]
        for part in rendered:
            if isinstance(part, ImageSlot):
                chunks.append([])
            else:
                chunks[-1].append(part)
        ids = self.tokenizer.encode(chunks[0])
        for chunk in chunks[1:]:
            chunk_ids = self.tokenizer.encode(chunk)
            ids += [IMAGE_PLACEHOLDER, *chunk_ids[int(self.tokenizer.settings.add_bos_token) :]]  # BOS only once
        return ids

    def encode_example(self, turns: Sequence[Turn], codes: Sequence[int] | None = None) -> tuple[list[int], list[int]]:
        """Token ids of a whole conversation, and labels that supervise the assistant's turns only.

        The ids before each answer are those of `encode`, so that training sees the prompts of inference.

        Args:
            turns: alternating, the last one the assistant's.
            codes: VQGAN codes that are the last turn's answer (generation) in place of its text.

        Returns:
            ids and labels of equal length; labels are -100 outside the answers and the tokens that end them.
        """
        if codes is None:
            return encode_conversation(self.tokenizer, self.template, turns)
        vocabulary = self._drawing_vocabulary()
        drawing = [*(vocabulary.first_code_id + code for code in codes), vocabulary.end_id]
        return encode_conversation(self.tokenizer, self.template, turns, drawing)

    def _drawing_vocabulary(self) -> ImageVocabulary:
        if self.image_vocabulary is None:
            raise ValueError("this model has no image tokens in its vocabulary and cannot draw")
        return self.image_vocabulary

    def pixels(self, image: ImageSource) -> Tensor:
        """An image as the ViT takes it: (3, S, S) float32."""
        return self._clip.pixels(image)

    def picture(self, image: ImageSource) -> Image.Image:
        """The same as a picture, (S, S)."""
        return self._clip.picture(image)

    def expanded_length(self, prompt: Prompt) -> int:
        """Number of positions the prompt takes in the model."""
        return len(prompt.ids) + prompt.ids.count(IMAGE_PLACEHOLDER) * (self.num_patches - 1)

    def batch(self, prompts: Sequence[Prompt]) -> tuple[Tensor, Tensor, Tensor | None]:
        """Left-pads prompts of one task to one length.

        Returns:
            expanded ids (B, L) with each image's P placeholders, attention mask (B, L), pixels (N, 3, S, S) or None.
        """
        length = max(map(self.expanded_length, prompts))
        ids = torch.zeros(len(prompts), length, dtype=torch.long)
        mask = torch.zeros(len(prompts), length, dtype=torch.long)
        for row, prompt in enumerate(prompts):
            expanded = self.expand(prompt.ids)
            ids[row, length - len(expanded) :] = torch.tensor(expanded)
            mask[row, length - len(expanded) :] = 1
        pixels = [prompt.pixels for prompt in prompts if prompt.pixels is not None]
        return ids, mask, torch.cat(pixels) if pixels else None

    def expand(self, ids: Sequence[int]) -> list[int]:
        """Each image placeholder as many times as an image has patches."""
        return [i for token in ids for i in ([token] * (self.num_patches if token == IMAGE_PLACEHOLDER else 1))]


def encode_conversation(
    tokenizer: SlowTokenizer, template: ChatTemplate, turns: Sequence[Turn], drawing: list[int] | None = None
) -> tuple[list[int], list[int]]:
    """Token ids and labels of a whole conversation; see `HealthGPTProcessor.encode_example`.

    Args:
        drawing: ids that are the last turn's answer in place of its text.
    """
    example = _Example(tokenizer)
    example.context(Span(template.system))
    for i, turn in enumerate(turns):
        example.context(Span(template.roles[turn.role]))
        if turn.role == "user":
            for part in turn.parts:
                if isinstance(part, ImageSlot):
                    example.image()
                else:
                    example.context(Span(part, literal=True))
            example.context(Span(template.end))
            continue
        if drawing is not None and i == len(turns) - 1:
            example.context(Span("<start_index>"))
            answer = drawing
        else:
            answer = tokenizer.encode_segment("".join(p for p in turn.parts if isinstance(p, str)).strip())
        example.answer(answer)
        example.context(Span(template.end))
    return example.finished()


class _Example:
    """Token ids and labels of a conversation, built up part by part."""

    def __init__(self, tokenizer: SlowTokenizer):
        self._tokenizer = tokenizer
        self._pending: list[Span] = []
        self._opens = True
        self._ends_answer = False
        self.ids: list[int] = []
        self.labels: list[int] = []

    def context(self, span: Span) -> None:
        """Text that is given, to be encoded together with what stands beside it."""
        self._pending.append(span)

    def image(self) -> None:
        """The place of an image, after which a new chunk of text begins."""
        self._flush()
        self._add([IMAGE_PLACEHOLDER], supervised=False)
        self._opens = True

    def answer(self, ids: list[int]) -> None:
        """Tokens to be learned; so is the first token of the context that follows, which ends the turn."""
        self._flush()
        self._add(ids, supervised=True)
        self._ends_answer = True

    def finished(self) -> tuple[list[int], list[int]]:
        """All ids and labels."""
        self._flush()
        return self.ids, self.labels

    def _flush(self) -> None:
        # An added token swallows white space beside it, so the end of a turn is encoded with what follows it.
        ids = self._tokenizer.encode(self._pending, opens=self._opens)
        if self._opens and self.ids and self._tokenizer.settings.add_bos_token:
            ids = ids[1:]  # BOS only once
        num_ends = int(self._ends_answer)
        self._add(ids[:num_ends], supervised=True)
        self._add(ids[num_ends:], supervised=False)
        self._pending, self._opens, self._ends_answer = [], False, False

    def _add(self, ids: list[int], supervised: bool) -> None:
        self.ids += ids
        self.labels += ids if supervised else [IGNORED_LABEL] * len(ids)
