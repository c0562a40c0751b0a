"""HealthGPT as a model of lmms-eval, which finds it by the entry point `lmms_eval.models` of this project's package:

    lmms-eval --model healthgpt --model_args pretrained=m3,dtype=bfloat16 --tasks slake_en --batch_size 8

A question's images stand before its text, as the model was trained; marks of their places in the text are left out.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from lmms_eval.api.instance import Instance
from lmms_eval.api.model import lmms
from tqdm import tqdm

from healthgpt.batch.reading import Failure
from healthgpt.batch.worker import Result, Worker
from healthgpt.data.records import IMAGE_MARK
from healthgpt.exchange import Answer, Request
from healthgpt.loading import choose_device
from healthgpt.pipeline import HealthGPT
from healthgpt.tasks import Task

logger = logging.getLogger(__name__)

_DECODING = ("max_new_tokens", "do_sample", "temperature", "top_p", "num_beams", "repetition_penalty", "seed")
_DTYPES = {"float32": "FP32", "float16": "FP16", "bfloat16": "BF16"}  # the kit's usual names


def manifest() -> Any:
    """What the kit's registry asks an entry point for."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(model_id="healthgpt", simple_class_path=f"{__name__}.{HealthGPTModel.__name__}")


class HealthGPTModel(lmms):
    """A resident model that answers the kit's questions.

    A question that fails (too long for the context, an unreadable image) is answered by nothing, with a warning.

    Attributes:
        device: where answers come from; in a run of several processes, each has its own GPU.
        batch_size: how many questions run through the network together.
    """

    is_simple = True  # the kit hands over a text and images, not a chat

    def __init__(
        self,
        pretrained: str,
        device: str = "auto",
        dtype: str = "auto",
        batch_size: int | str = 1,
        attn_implementation: str | None = None,
    ):
        """Loads the model.

        Args:
            pretrained: a model folder, `nano`, `m3`, `l14`, `xl32` or a hub id.
            device, dtype, attn_implementation: as `HealthGPT.from_pretrained`, or torch's names of dtypes.

        Raises:
            FileNotFoundError, ValueError: as `HealthGPT.from_pretrained`; a batch size that is no positive number.
        """
        super().__init__()
        if not str(batch_size).isdecimal() or int(batch_size) < 1:
            raise ValueError(
                f"batch_size is {batch_size!r}, expected a positive number; HealthGPT finds none by itself"
            )
        self.batch_size = int(batch_size)
        self.device = choose_device(_own_device(device))
        self._model = HealthGPT.from_pretrained(
            pretrained,
            device=str(self.device),
            dtype=_DTYPES.get(dtype, dtype),
            attn_implementation=attn_implementation,
        )

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Answers, in the requests' order; those with the same settings run together."""
        groups: dict[Settings, list[int]] = defaultdict(list)
        for place, request in enumerate(requests):
            groups[Settings.of(request.args[1])].append(place)
        answers = [""] * len(requests)
        with tqdm(total=len(requests), disable=self.rank != 0, desc="HealthGPT") as bar:
            for settings, places in groups.items():
                worker = Worker(self._model, dict(settings.decoding))
                for start in range(0, len(places), self.batch_size):
                    here = places[start : start + self.batch_size]
                    results = worker.run([self._question(requests[place]) for place in here])
                    for place, result in zip(here, results, strict=True):
                        answers[place] = settings.text(result)
                    bar.update(len(here))
        return answers

    def generate_until_multi_round(self, requests: list[Instance]) -> list[list[str]]:
        """Answers of each request's rounds; what the next round asks is the task's to say."""
        return [self._rounds(*request.args) for request in tqdm(requests, disable=self.rank != 0, desc="HealthGPT")]

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Is refused: the model's answers are generated."""
        raise NotImplementedError(
            "HealthGPT gives no log-likelihoods: take a task whose output_type is generate_until, not "
            "loglikelihood or multiple_choice"
        )

    def clean(self) -> None:
        """Frees the model, as the kit asks before judges are loaded."""
        self.__dict__.pop("_model", None)  # the kit itself only finds attributes that are torch modules
        super().clean()

    def _question(self, request: Instance) -> Request:
        context, _, doc_to_visual, doc_id, task, split = request.args
        return question_of(context, doc_to_visual(self.task_dict[task][split][doc_id]))

    def _rounds(
        self, context: str, given: Mapping[str, Any], doc_to_visual: Any, doc_to_text: Any, *place: Any
    ) -> list[str]:
        doc_id, task, split = place
        document, settings = self.task_dict[task][split][doc_id], Settings.of(given)
        worker = Worker(self._model, dict(settings.decoding))
        visuals, said, facts = doc_to_visual(document), [], None
        for number in count(1):
            said.append(settings.text(worker.run([question_of(context, visuals)])[0]))
            visuals, context, finished, said, facts = doc_to_text(
                document, previous_output=said, round_idx=number, previous_round_info=facts
            )
            said = list(said)
            if finished:
                break
        return said


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a request wants to be answered.

    Attributes:
        decoding: keywords of `decoding.Decoding`.
        until: texts before which an answer ends.
    """

    decoding: tuple[tuple[str, Any], ...]
    until: tuple[str, ...]

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Settings:
        """The settings in a task's `generation_kwargs`; names that HealthGPT has nothing for are warned of.

        Tasks say "greedy" by `do_sample: false` or by a temperature of 0, whatever the other one says.
        """
        if ignored := sorted(given.keys() - {*_DECODING, "until"}):
            # Of thousands of requests, Python shows one.
            warnings.warn(f"HealthGPT has no {', '.join(ignored)}: ignored", stacklevel=2)
        decoding = {name: given[name] for name in _DECODING if given.get(name) is not None}
        temperature = decoding.get("temperature")
        sampled = bool(decoding.get("do_sample", temperature)) and temperature != 0
        until = given.get("until") or ()
        return cls(
            decoding=tuple({**decoding, "do_sample": sampled}.items()),
            until=(until,) if isinstance(until, str) else tuple(stop for stop in until if stop),
        )

    def text(self, result: Result) -> str:
        """An answer up to where it is to end; nothing of a question that failed."""
        if isinstance(result, Failure):
            logger.warning("a question has no answer: %s", result.reason)
            return ""
        assert isinstance(result, Answer)
        ends = (result.text.find(stop) for stop in self.until)
        return result.text[: min((end for end in ends if end >= 0), default=None)]


def question_of(context: str, visuals: Any) -> Request:
    """A request of the kit's text and visuals: None, or images in lists, which may be nested."""
    images = list(_images(visuals))
    question = context.replace(IMAGE_MARK, "").strip() if images else context
    return Request(task=Task.COMPREHENSION, question=question, images=images)


def _images(visuals: Any) -> Iterator[Any]:
    if isinstance(visuals, list | tuple):
        for visual in visuals:
            yield from _images(visual)
    elif visuals is not None:
        yield visuals


def _own_device(name: str) -> str:
    """The process's own GPU where there are several processes and GPUs."""
    rank = os.environ.get("LOCAL_RANK", "0")
    return f"cuda:{rank}" if name in ("auto", "cuda") and torch.cuda.device_count() > int(rank) else name
