"""Token by token: transformers' `generate` on the routed network, the slow and obvious decoder."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from healthgpt.decoding import Decoding, FirstTokenConfidence, GumbelSampling, sampling_warpers
from healthgpt.model import HealthGPTForConditionalGeneration
from healthgpt.processor import HealthGPTProcessor, Prompt
from healthgpt.vocabulary import ImageVocabulary, OnlyImageCodes

# What the original samples from where the base's generation_config.json names no number.
_DEFAULT_TOP_K = 50


class Generator:
    """Decodes by transformers' `generate`, routing the network under a lock.

    Attributes:
        lock: held by whoever routes the network.
        stop_ids: tokens that end an answer, from the base's `generation_config.json` (else its `config.json`).
        repetition_penalty, top_k: where the user names none, from there too.
    """

    def __init__(self, network: HealthGPTForConditionalGeneration, processor: HealthGPTProcessor):
        self._network = network
        self._processor = processor
        self.lock = threading.Lock()
        base = network.generation_config
        eos = base.eos_token_id if base.eos_token_id is not None else network.config.text_config.eos_token_id
        self.stop_ids = [eos] if isinstance(eos, int) else list(eos or [])
        if not self.stop_ids:
            raise ValueError("neither generation_config.json nor config.json of the base names an eos_token_id")
        self._pad_id = base.pad_token_id if base.pad_token_id is not None else self.stop_ids[0]
        self.repetition_penalty = base.repetition_penalty or 1.0
        self.top_k = _DEFAULT_TOP_K if base.top_k is None else base.top_k  # 0 is none
        # What remains of the base's settings must not leak into `generate`.
        network.generation_config = GenerationConfig()

    def generate(
        self,
        prompts: Sequence[Prompt],
        settings: Decoding,
        num_tokens: int,
        codes_of: ImageVocabulary | None = None,
        confidence: FirstTokenConfidence | None = None,
        watch: Sequence[Callable[[int], bool]] | None = None,
    ) -> list[list[int]]:
        """New ids of prompts of one task, at most `num_tokens` each; exactly as many codes with `codes_of`.

        Args:
            confidence: is told of the first step; for greedy decoding.
            watch: for each prompt, is told of every token until its answer is false or a stop token came; not of beams.
        """
        watched = _Watched(watch, self.stop_ids) if watch else None
        if settings.do_sample and settings.num_beams > 1 and len(prompts) > 1:
            # Beam sampling draws from the library's one generator, so a batch would not be the same as one by one.
            return [self.generate([prompt], settings, num_tokens, codes_of)[0] for prompt in prompts]
        input_ids, mask, pixels = self._processor.batch(prompts)
        config = GenerationConfig(
            max_new_tokens=num_tokens,
            num_beams=settings.num_beams,
            repetition_penalty=settings.repetition_penalty or self.repetition_penalty,
            eos_token_id=None if codes_of else self.stop_ids,
            pad_token_id=self._pad_id,
            **self._beam_sampling(settings),
        )
        # First of ours, so that it sees what the network gave: the library's own repetition penalty stands before it,
        # but has no tokens to penalise at the first step.
        watching = [confidence] if confidence else []
        processors = LogitsProcessorList([*watching, *self._processors(settings, len(prompts), codes_of)])
        with self.lock, torch.inference_mode(), _seeded(settings), warnings.catch_warnings():
            # The library warns that only generated tokens are penalised, which is what the original did.
            warnings.filterwarnings("ignore", message="Passing `repetition_penalty` with `inputs_embeds`")
            self._network.route(prompts[0].task)
            device = self._network.get_input_embeddings().weight.device
            embeds = self._network.embed_prompt(input_ids.to(device), pixels)
            generated = self._network.generate(
                inputs_embeds=embeds,
                attention_mask=mask.to(device),
                generation_config=config,
                logits_processor=processors,
                streamer=watched,
                stopping_criteria=StoppingCriteriaList([watched.criterion]) if watched else None,
            )
        return generated.tolist()

    def _processors(self, settings: Decoding, num_rows: int, codes_of: ImageVocabulary | None) -> list[Any]:
        """What is done to the scores before the largest is taken."""
        processors: list[Any] = [OnlyImageCodes(codes_of)] if codes_of else []
        if settings.do_sample and settings.num_beams == 1:
            processors += [*sampling_warpers(settings, self.top_k), GumbelSampling(num_rows, settings.seed)]
        return processors

    def _beam_sampling(self, settings: Decoding) -> dict[str, Any]:
        if not settings.do_sample or settings.num_beams == 1:
            return {"do_sample": False}
        return {
            "do_sample": True,
            "temperature": settings.temperature or 1.0,
            "top_k": self.top_k,
            "top_p": settings.top_p or 1.0,
        }


class _Watched(BaseStreamer):
    """Tells of tokens, and stops when nobody wants more.

    Attributes:
        criterion: for `generate`.
    """

    def __init__(self, watch: Sequence[Callable[[int], bool]], stop_ids: Sequence[int]):
        self._watch, self._stop_ids = watch, stop_ids
        self._ended = [False] * len(watch)
        self.criterion = _Until(self._ended)

    def put(self, value: Tensor) -> None:
        """Takes new ids, one for each prompt; the prompts' own, which come first, are none, as they are embeddings."""
        for row, token in enumerate(value.flatten().tolist()):
            if not self._ended[row]:
                self._ended[row] = not self._watch[row](token) or token in self._stop_ids

    def end(self) -> None:
        """`generate` is done."""


class _Until(StoppingCriteria):
    def __init__(self, ended: Sequence[bool]):
        self._ended = ended

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        return torch.tensor(self._ended, device=input_ids.device)


@contextlib.contextmanager
def _seeded(settings: Decoding) -> Iterator[None]:
    """Seeds torch's generators for beam sampling, and leaves them as they were; other sampling has its own."""
    if not settings.do_sample or settings.num_beams == 1 or settings.seed is None:
        yield
        return
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        yield
