"""`HealthGPT`: load once, then answer questions about images and draw images.

One network serves both tasks; the pipeline owns it. Whoever decodes routes it under one lock, so threads may share a
`HealthGPT`: their calls run one after another.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Self, overload

import torch
from PIL import Image
from torch import Tensor

from healthgpt.config import ModelSources
from healthgpt.decoding import Decoding, FirstTokenConfidence
from healthgpt.engine.engine import Engine
from healthgpt.exchange import Answer, Drawing, Request
from healthgpt.images import ImageSource
from healthgpt.loading import LoadedModel, LoadOptions, load_model
from healthgpt.processor import Prompt
from healthgpt.shortcuts import Shortcuts
from healthgpt.sources import named_sources
from healthgpt.streaming import (
    PartialDrawing,
    SettledText,
    StoppedError,
    Told,
    partial_drawings,
    settled_pieces,
    telling_rows,
    tokens_of,
)
from healthgpt.targets import as_image, codes_of, through_codes
from healthgpt.tasks import Task
from healthgpt.vocabulary import ImageVocabulary
from taming_transformers import GumbelVQ

_WAITING = 8  # batches of answers whose images are read before the first of them begins


class HealthGPT:
    """A resident model that answers and draws.

    Every call takes the keywords of `decoding.Decoding`: `max_new_tokens` (answers), `do_sample`, `temperature`,
    `top_p`, `num_beams`, `repetition_penalty` and `seed`. Images are paths, PIL images or arrays (`images.read_image`).
    """

    def __init__(self, loaded: LoadedModel, shortcuts: Shortcuts = Shortcuts()):
        self._network = loaded.network
        self._processor = loaded.processor
        self._vqgan = loaded.vqgan
        self._engine = Engine(loaded.network, loaded.processor, shortcuts)
        self._context = int(loaded.network.config.text_config.max_position_embeddings)

    @classmethod
    def from_pretrained(
        cls,
        name_or_folder: str | Path,
        *,
        device: str = "auto",
        dtype: str = "auto",
        attn_implementation: str | None = None,
        device_map: str | dict[str, Any] | None = None,
        load_in_8bit: bool = False,
        load_in_4bit: bool = False,
        shortcuts: Shortcuts = Shortcuts(),
    ) -> Self:
        """Loads a model folder, a named model (`nano`, `m3`, `l14`, `xl32`) or a model folder on the hub.

        Args:
            device: auto, cpu, cuda, cuda:N or mps.
            dtype: auto (the base's own), FP32, FP16 or BF16.
            device_map: accelerate's placement over several GPUs.
            load_in_8bit, load_in_4bit: quantise the base by bitsandbytes.
            shortcuts: what may be given up for speed; nothing by default.

        Raises:
            FileNotFoundError, ValueError: no such model, or a part of it is missing or damaged; shortcuts that there
                are none of for it or its device.
        """
        options = LoadOptions(
            device=device,
            dtype=dtype,
            attn_implementation=attn_implementation,
            device_map=device_map,
            load_in_8bit=load_in_8bit,
            load_in_4bit=load_in_4bit,
            shortcuts=shortcuts,
        )
        return cls.from_sources(named_sources(str(name_or_folder)), options)

    @classmethod
    def from_sources(cls, sources: ModelSources, options: LoadOptions = LoadOptions()) -> Self:
        """Loads a model from its parts, wherever they are."""
        return cls(load_model(sources, options), options.shortcuts)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What this model can do."""
        return self._network.tasks

    @property
    def drawing_size(self) -> tuple[int, int] | None:
        """Width and height of its drawings; None for a model without a VQGAN."""
        return None if self._vqgan is None else (self._vqgan.config.resolution,) * 2

    @overload
    def answer(
        self, question: str, image: Any = None, *, return_details: Literal[False] = False, **decoding: Any
    ) -> str: ...
    @overload
    def answer(self, question: str, image: Any = None, *, return_details: Literal[True], **decoding: Any) -> Answer: ...
    def answer(
        self,
        question: str,
        image: ImageSource | Sequence[ImageSource] | None = None,
        *,
        history: Sequence[tuple[str, str]] = (),
        return_details: bool = False,
        **decoding: Any,
    ) -> str | Answer:
        """Answers a question about an image, several images (a list) or none.

        Args:
            history: earlier (question, answer) turns; images belong to the first.
            return_details: return an `Answer` instead of its text.

        Raises:
            ValueError, FileNotFoundError: an unreadable image, an empty question, a prompt longer than the context.
        """
        request = Request(task=Task.COMPREHENSION, question=question, images=_as_list(image), history=history)
        answer = self._answer([request], Decoding(**decoding))[0]
        return answer if return_details else answer.text

    @overload
    def draw(
        self, question: str, image: Any = None, *, return_details: Literal[False] = False, **decoding: Any
    ) -> Image.Image: ...
    @overload
    def draw(self, question: str, image: Any = None, *, return_details: Literal[True], **decoding: Any) -> Drawing: ...
    def draw(
        self,
        question: str,
        image: ImageSource | Sequence[ImageSource] | None = None,
        *,
        return_details: bool = False,
        **decoding: Any,
    ) -> Image.Image | Drawing:
        """Draws what an instruction asks for, from an image or (report to X-ray) from the text alone.

        Raises:
            ValueError, FileNotFoundError: as `answer`; a model without generation plugin, fusion weights or VQGAN.
        """
        request = Request(task=Task.GENERATION, question=question, images=_as_list(image))
        drawing = self._draw([request], Decoding(**decoding))[0]
        return drawing if return_details else drawing.image

    def answer_batch(
        self, questions: Sequence[str], images: Sequence[Any] | None = None, *, batch_size: int = 8, **decoding: Any
    ) -> list[str]:
        """Answers many questions, each as `answer` would alone; `images[i]` is None, one image or a list."""
        requests = _paired(Task.COMPREHENSION, questions, images)
        return [result.text for result in self.run_batch(requests, batch_size=batch_size, **decoding)]

    def draw_batch(
        self, questions: Sequence[str], images: Sequence[Any] | None = None, *, batch_size: int = 8, **decoding: Any
    ) -> list[Image.Image]:
        """Draws many images, each as `draw` would alone."""
        requests = _paired(Task.GENERATION, questions, images)
        return [result.image for result in self.run_batch(requests, batch_size=batch_size, **decoding)]

    def through_codes(self, image: ImageSource) -> Image.Image:
        """An image encoded by the VQGAN and decoded again: the best that a drawing of it can be.

        Raises:
            ValueError, FileNotFoundError: this model has no VQGAN; the image cannot be read.
        """
        if self._vqgan is None:
            raise ValueError("this model has no VQGAN, so it has no codes of images")
        return through_codes(self._vqgan, image)

    def run_batch(
        self,
        requests: Sequence[Request],
        *,
        batch_size: int = 8,
        watch: Sequence[Callable[[int], bool]] | None = None,
        **decoding: Any,
    ) -> list[Any]:
        """Runs requests of both tasks, mixed freely; results (`Answer`, `Drawing`) are in the requests' order.

        Args:
            batch_size: how many of one task run through the network together. Of more answers, those that end make
                room for the next.
            watch: for each request, is told of every token of its answer or, row by row, every code of its drawing.
                A false answer ends the request: an answer is what it is by then, drawings end once nobody in their
                batch wants more, and are None. Nobody is told of beams.
        """
        settings = Decoding(**decoding)
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}, expected at least 1")
        results: list[Any] = [None] * len(requests)
        answer = functools.partial(self._answer, places=batch_size)
        window = batch_size * (_WAITING if self._engine.joins(settings) else 1)
        for task, run, most in (
            (Task.COMPREHENSION, answer, window),
            (Task.GENERATION, self._draw, batch_size),
        ):
            places = [i for i, request in enumerate(requests) if request.task is task]
            for start in range(0, len(places), most):
                here = places[start : start + most]
                told = [watch[i] for i in here] if watch else None
                for place, result in zip(here, run([requests[i] for i in here], settings, told), strict=True):
                    results[place] = result
        return results

    def settling(self) -> SettledText:
        """Makes text of the tokens that a watch is told of: together, its pieces are the answer's text."""
        return SettledText(self._processor.tokenizer, self._engine.stop_ids)

    def prompt_length(self, prompt_ids: Sequence[int]) -> int:
        """How many tokens a prompt is to the model, to which an image is as many as it has patches."""
        return len(self._processor.expand(prompt_ids))

    def seen(self, image: ImageSource) -> Image.Image:
        """What the model sees of an image; asked about that, it gives the same answers.

        Raises:
            ValueError, FileNotFoundError: it cannot be read.
        """
        return self._processor.picture(image)

    def stream(
        self,
        question: str,
        image: ImageSource | Sequence[ImageSource] | None = None,
        *,
        history: Sequence[tuple[str, str]] = (),
        **decoding: Any,
    ) -> Iterator[str]:
        """Yields the pieces of `answer`'s text as they are decided; together they are that text.

        Closing the iterator stops the generation. The model is held until the iterator is finished or closed.

        Raises:
            ValueError, FileNotFoundError: as `answer`, at the call and not at the first piece; more than one beam.
        """
        settings = _streamable(decoding)
        prompt = self._prompt(
            Request(task=Task.COMPREHENSION, question=question, images=_as_list(image), history=history)
        )
        limit = self._new_token_limit(prompt, settings)
        return self._stream(prompt, settings, limit)

    def _stream(self, prompt: Prompt, settings: Decoding, limit: int) -> Iterator[str]:
        tokens = tokens_of(lambda tell: self._engine.answer([prompt], settings, [limit], watch=[tell]))
        with contextlib.closing(tokens):
            yield from settled_pieces(tokens, self.settling(), self._engine.stop_ids)

    def stream_drawing(
        self, question: str, image: ImageSource | Sequence[ImageSource] | None = None, **decoding: Any
    ) -> Iterator[PartialDrawing | Drawing]:
        """Yields a drawing's codes whenever a row of them is known, and at last the `Drawing` that `draw` gives.

        Closing the iterator stops the drawing. The model is held until the last row is known or it is closed.

        Raises:
            ValueError, FileNotFoundError: as `draw`, at the call and not at the first row; more than one beam.
        """
        settings = _streamable(decoding)
        request = Request(task=Task.GENERATION, question=question, images=_as_list(image))
        return self._stream_drawing(request, self._drawing_prompts([request]), settings)

    def _stream_drawing(
        self, request: Request, prompts: list[Prompt], settings: Decoding
    ) -> Iterator[PartialDrawing | Drawing]:
        vqgan, vocabulary = self._drawing_parts()

        def work(tell: Callable[[int], bool]) -> None:
            watch, given = telling_rows([tell], vqgan.config.grid[1]), _codes_given([request], vqgan)
            with contextlib.suppress(StoppedError):
                self._engine.draw(prompts, settings, vocabulary, vqgan.config.num_codes, given=given, watch=watch)

        codes: list[int] = []
        with contextlib.closing(tokens_of(work)) as tokens:
            for partial in partial_drawings(tokens, vqgan):
                codes = partial.indices
                yield partial
        yield self._drawn(prompts[0], [vocabulary.first_code_id + code for code in codes])

    def _answer(
        self,
        requests: Sequence[Request],
        settings: Decoding,
        watch: Sequence[Callable[[int], bool]] | None = None,
        places: int | None = None,
    ) -> list[Answer]:
        prompts = self._prompts(requests)
        limits = [self._new_token_limit(prompt, settings) for prompt in prompts]
        first = FirstTokenConfidence() if settings.greedy else None
        told = [Told(tell, limit) for tell, limit in zip(watch, limits, strict=True)] if watch else None
        generated = self._engine.answer(prompts, settings, limits, places=places, confidence=first, watch=told)
        if told and settings.num_beams == 1:
            limits = [one.count for one in told]
        confidences = [None] * len(prompts) if first is None or first.values is None else first.values.tolist()
        answers = []
        for prompt, limit, ids, confidence in zip(prompts, limits, generated, confidences, strict=True):
            ids = self._until_stop(ids[:limit])
            ended = bool(ids) and ids[-1] in self._engine.stop_ids
            answers.append(
                Answer(
                    text=self._processor.tokenizer.decode(ids[:-1] if ended else ids),
                    token_ids=ids,
                    prompt_ids=prompt.ids,
                    confidence=confidence,
                    truncated=not ended,
                )
            )
        return answers

    def _draw(
        self, requests: Sequence[Request], settings: Decoding, watch: Sequence[Callable[[int], bool]] | None = None
    ) -> list[Any]:
        prompts = self._drawing_prompts(requests)
        vqgan, vocabulary = self._drawing_parts()
        told = telling_rows(watch, vqgan.config.grid[1]) if watch else None
        given, num_codes = _codes_given(requests, vqgan), vqgan.config.num_codes
        try:
            generated = self._engine.draw(prompts, settings, vocabulary, num_codes, given=given, watch=told)
        except StoppedError:
            return [None] * len(prompts)
        return [self._drawn(prompt, ids) for prompt, ids in zip(prompts, generated, strict=True)]

    def _drawing_prompts(self, requests: Sequence[Request]) -> list[Prompt]:
        """The prompts of drawings, which must leave room for a picture."""
        prompts = self._prompts(requests)
        num_codes = self._drawing_parts()[0].config.num_codes
        for prompt in prompts:
            length = self._processor.expanded_length(prompt)
            if length + num_codes > self._context:
                raise ValueError(
                    f"a prompt of {length} tokens and an image of {num_codes} exceed the context of {self._context}"
                )
        return prompts

    def _drawing_parts(self) -> tuple[GumbelVQ, ImageVocabulary]:
        vocabulary = self._processor.image_vocabulary
        if self._vqgan is None or vocabulary is None:
            raise ValueError("drawing needs a VQGAN: a folder with model.yaml and last.ckpt (--vqgan_path)")
        return self._vqgan, vocabulary

    def _drawn(self, prompt: Prompt, ids: list[int]) -> Drawing:
        """The picture of a drawing's code ids, decoded alone, so that a batch gives the very pixels of single calls."""
        vqgan, vocabulary = self._drawing_parts()
        indices = vocabulary.indices(ids)
        with torch.inference_mode():
            grid = torch.tensor(indices).view(1, *vqgan.config.grid).to(next(vqgan.parameters()).device)
            picture = vqgan.decode(grid)[0]
        return Drawing(
            image=as_image(picture),
            indices=indices,
            token_ids=[*ids, vocabulary.end_id],  # after the last code nothing else may come
            prompt_ids=prompt.ids,
        )

    def _prompts(self, requests: Sequence[Request]) -> list[Prompt]:
        """The prompts of requests; an image that is the same object in several is prepared once."""
        known: dict[tuple[int, ...], Tensor | None] = {}
        prompts = []
        for request in requests:
            images = tuple(map(id, request.images))
            prompts.append(self._prompt(request, known.get(images)))
            known[images] = prompts[-1].pixels
        return prompts

    def _prompt(self, request: Request, pixels: Tensor | None = None) -> Prompt:
        if request.task not in self.tasks:
            raise ValueError(f"this model has no {request.task} plugin, only {', '.join(self.tasks)}")
        return self._processor.prompt(request.task, request.question, request.images, request.history, pixels)

    def _new_token_limit(self, prompt: Prompt, settings: Decoding) -> int:
        """How many tokens an answer may have: what is asked for, and what the context has left."""
        length = self._processor.expanded_length(prompt)
        if length >= self._context:
            raise ValueError(f"a prompt of {length} tokens does not fit the context of {self._context}")
        return min(settings.max_new_tokens, self._context - length)

    def _until_stop(self, ids: list[int]) -> list[int]:
        stops = (i for i, token in enumerate(ids) if token in self._engine.stop_ids)
        return ids[: next(stops, len(ids)) + 1]


def _codes_given(requests: Sequence[Request], vqgan: GumbelVQ) -> Callable[[], Tensor] | None:
    """How to get the codes of a single drawing's image; None for several drawings, or one without a single image."""
    if len(requests) > 1 or len(requests[0].images) != 1:
        return None
    return lambda: codes_of(vqgan, requests[0].images[0])


def _streamable(decoding: dict[str, Any]) -> Decoding:
    settings = Decoding(**decoding)
    if settings.num_beams > 1:
        raise ValueError(f"streaming is greedy or sampled, num_beams is {settings.num_beams}")
    return settings


def _as_list(image: ImageSource | Sequence[ImageSource] | None) -> list[ImageSource]:
    if image is None:
        return []
    return list(image) if isinstance(image, list | tuple) else [image]


def _paired(task: Task, questions: Sequence[str], images: Sequence[Any] | None) -> list[Request]:
    images = [None] * len(questions) if images is None else images
    if len(images) != len(questions):
        raise ValueError(f"{len(questions)} questions for {len(images)} images; give one entry (or None) per question")
    return [Request(task=task, question=q, images=_as_list(i)) for q, i in zip(questions, images, strict=True)]
