"""What the pipeline talks to: the engine where it can run, transformers' `generate` where it cannot."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from healthgpt.decoding import Decoding, FirstTokenConfidence
from healthgpt.engine.answering import Answering, Text
from healthgpt.engine.choosing import Chooser
from healthgpt.engine.cohorts import answer_together
from healthgpt.engine.decoder import Decoder, UnsupportedError, decoders_of
from healthgpt.engine.drawing import draw_codes
from healthgpt.engine.graphs import steppers_for
from healthgpt.engine.prompts import EmbeddedPrompt, begin_alike, embed_prompts
from healthgpt.engine.side_by_side import draw_codes_side_by_side
from healthgpt.engine.speculation import Guesser, Hopes, draw_codes_ahead
from healthgpt.generation import Generator
from healthgpt.model import HealthGPTForConditionalGeneration
from healthgpt.processor import HealthGPTProcessor, Prompt
from healthgpt.shortcuts import Shortcuts
from healthgpt.tasks import Task
from healthgpt.vocabulary import ImageVocabulary

logger = logging.getLogger(__name__)

_JOINING = 4  # texts that wait may wait until a fourth of the places is free, so that several are read together


class Engine:
    """Decodes prompts of a network, one request after the other: a lock is held while the network is routed to a task.

    Args:
        shortcuts: beams are decoded without any.

    Raises:
        ValueError: shortcuts that this network or device does not have.

    Attributes:
        oracle: the slow and obvious decoder, for beams and for networks that the engine does not know.
    """

    def __init__(
        self,
        network: HealthGPTForConditionalGeneration,
        processor: HealthGPTProcessor,
        shortcuts: Shortcuts = Shortcuts(),
    ):
        self.oracle = Generator(network, processor)
        self._network, self._processor, self._row_lead = network, processor, shortcuts.row_lead
        # In 16 bits a pass of several codes rounds otherwise than one of each, and weights in 8 bits round only for
        # few tokens: there the codes of guesses would not be those of plain drawing.
        exact = network.get_input_embeddings().weight.dtype is torch.float32 and not shortcuts.int8_weights
        self._hopes = Hopes() if exact else None
        self._decoders: dict[Task, Decoder] | None = None
        self._steppers = steppers_for(network.get_input_embeddings().weight.device)
        try:
            with torch.inference_mode():
                self._decoders = decoders_of(network, shortcuts)
        except UnsupportedError as reason:
            if shortcuts.names:
                raise ValueError(
                    f"{', '.join(shortcuts.names)}: the engine does not run this model ({reason})"
                ) from None
            logger.info("decoding by transformers' generate: %s", reason)

    @property
    def stop_ids(self) -> list[int]:
        """Tokens that end an answer."""
        return self.oracle.stop_ids

    def joins(self, settings: Decoding) -> bool:
        """Whether prompts of an `answer` may wait until others have ended."""
        return self._decoders is not None and settings.num_beams == 1

    def answer(
        self,
        prompts: Sequence[Prompt],
        settings: Decoding,
        limits: Sequence[int],
        *,
        places: int | None = None,
        confidence: FirstTokenConfidence | None = None,
        watch: Sequence[Callable[[int], bool]] | None = None,
    ) -> list[list[int]]:
        """Ids of each prompt's answer, its stop token included.

        Args:
            limits: tokens that each may have.
            places: how many are at work at once, where `joins` says so; the others wait until one has ended.
            confidence: is told how probable first tokens are; for greedy decoding.
            watch: for each prompt, is told of every token of its answer as soon as the host knows it; false ends it.
                Nobody is told of beams.

        Raises:
            FloatingPointError: logits that are no numbers.
            MemoryError, torch.OutOfMemoryError: keys and values that do not fit; the text has the numbers.
        """
        if self._decoders is None or settings.num_beams > 1:
            with self.oracle.lock:  # another thread may be at steps that are kept
                self.release()
            told = watch if settings.num_beams == 1 else None
            return self.oracle.generate(prompts, settings, max(limits), confidence=confidence, watch=told)
        with self.oracle.lock, torch.inference_mode():
            decoder = self._decoders[prompts[0].task]
            chooser = self._chooser(settings)
            nobody: list[Callable[[int], bool] | None] = [None] * len(prompts)
            texts = [
                Text(prompt=prompt, positions=self._processor.expanded_length(prompt), most=limit, watch=told)
                for prompt, limit, told in zip(prompts, limits, watch or nobody, strict=True)
            ]
            places = min(places or len(texts), len(texts))
            # What begins alike is read once where it is read together, which saves more than joining early.
            whole = places < len(texts) and begin_alike(prompts)
            at_once = places if whole else -(-places // _JOINING)
            if self._steppers and chooser.greedy:
                answer_together(
                    decoder,
                    self._steppers,
                    texts,
                    frozenset(self.stop_ids),
                    self._embedded,
                    places=places,
                    at_once=at_once,
                    penalty=chooser.penalty,
                )
            else:
                self._answer_by_turns(decoder, chooser, texts, places, at_once)
            if confidence is not None:
                confidence(torch.empty(0), torch.stack([text.first_logits for text in texts]))
        return [text.tokens for text in texts]

    def _answer_by_turns(
        self, decoder: Decoder, chooser: Chooser, texts: Sequence[Text], places: int, at_once: int
    ) -> None:
        self.release()
        answering = Answering(decoder, chooser, self.stop_ids, self._embedded, places, at_once)
        for text in texts:
            answering.add(text)
        for _ in answering.run():
            pass

    def draw(
        self,
        prompts: Sequence[Prompt],
        settings: Decoding,
        vocabulary: ImageVocabulary,
        num_codes: int,
        *,
        given: Callable[[], Tensor] | None = None,
        watch: Callable[[Tensor], None] | None = None,
    ) -> list[list[int]]:
        """Ids of each prompt's codes.

        Args:
            given: of a single prompt, the codes of its image, (rows, columns): they help to guess, and change nothing.
            watch: is told of every code as soon as it is chosen, (B,) indices; transformers' `generate` tells of
                single prompts without beams only.

        Raises:
            FloatingPointError: logits that are no numbers.
            MemoryError, torch.OutOfMemoryError: keys and values that do not fit; the text has the numbers.
        """
        if self._decoders is None or settings.num_beams > 1:
            with self.oracle.lock:  # another thread may be at steps that are kept
                self.release()
            told = _telling_codes(watch, vocabulary) if watch and len(prompts) == settings.num_beams == 1 else None
            return self.oracle.generate(prompts, settings, num_codes, codes_of=vocabulary, watch=told and [told])
        with self.oracle.lock, torch.inference_mode():
            decoder = self._decoders[prompts[0].task]
            chooser = self._chooser(settings, vocabulary)
            if self._row_lead and chooser.plain:
                self.release()
                return draw_codes_side_by_side(
                    decoder,
                    self._embedded(prompts),
                    vocabulary,
                    num_codes,
                    columns=math.isqrt(num_codes),  # grids are square
                    lead=self._row_lead,
                    watch=watch,
                )
            # Steps that are captured need no guesses to be fast.
            if given and self._hopes and chooser.plain and not self._steppers:
                asked = tuple(prompts[0].ids)
                if (share := self._hopes.share(asked)) is not None:
                    grid = given()
                    guesser = Guesser(grid.flatten().tolist(), columns=grid.shape[1], share=share)
                    prompt = self._embedded(prompts)[0]
                    ids, _ = draw_codes_ahead(decoder, prompt, vocabulary, num_codes, guesser, watch)
                    self._hopes.learn(asked, guesser)
                    return [ids]
            if not chooser.greedy:
                self.release()
            embedded = self._embedded(prompts)
            return draw_codes(decoder, chooser, embedded, vocabulary, num_codes, watch, self._steppers)

    def release(self) -> None:
        """Lets go of the memory that greedy steps keep between requests."""
        if self._steppers:
            self._steppers.clear()

    def _chooser(self, settings: Decoding, codes_of: ImageVocabulary | None = None) -> Chooser:
        penalty = settings.repetition_penalty or self.oracle.repetition_penalty
        return Chooser(settings, penalty, self.oracle.top_k, codes_of)

    def _embedded(self, prompts: Sequence[Prompt]) -> list[EmbeddedPrompt]:
        self._network.route(prompts[0].task)
        return embed_prompts(self._network, self._processor, prompts)


def _telling_codes(watch: Callable[[Tensor], None], vocabulary: ImageVocabulary) -> Callable[[int], bool]:
    """A watcher of tokens that tells one of codes."""

    def told(token: int) -> bool:
        if token != vocabulary.end_id:
            watch(torch.tensor([token - vocabulary.first_code_id]))
        return True

    return told
