"""HealthGPT as a model of VLMEvalKit, which has no way for models from outside to join it, so that this starts it:

    python -m healthgpt.evaluation.adapters.vlmeval --pretrained m3 --dtype BF16 --data PathVQA_TEST --mode infer

All other flags are the kit's own (but for --model and --config); its results name the model healthgpt-m3. A checkout of
the kit keeps its `run.py` outside of its package: start this in the checkout's folder.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from vlmeval.vlm.base import BaseModel

from healthgpt.batch.reading import Failure
from healthgpt.batch.worker import Worker
from healthgpt.exchange import Answer, Request
from healthgpt.pipeline import HealthGPT
from healthgpt.tasks import Task

# How the kit marks and counts questions that have no answer.
_FAILED = "Failed to obtain answer"


class HealthGPTModel(BaseModel):
    """A resident model that answers the kit's messages: all images first, as the model was trained, then all texts."""

    INTERLEAVE = True  # else the kit would keep the first image only
    allowed_types = ("text", "image")

    def __init__(self, pretrained: str, device: str = "auto", dtype: str = "auto", **decoding: Any):
        """Loads the model.

        Args:
            pretrained, device, dtype: as `HealthGPT.from_pretrained`.
            decoding: keywords of `decoding.Decoding`.

        Raises:
            FileNotFoundError, ValueError: as `HealthGPT.from_pretrained`.
        """
        super().__init__()
        self._worker = Worker(HealthGPT.from_pretrained(pretrained, device=device, dtype=dtype), decoding)

    def generate_inner(self, message: Sequence[Mapping[str, str]], dataset: str | None = None) -> str:
        """The answer to a message's parts, each a `type` (text, or image by its path) and a `value`."""
        found = {kind: [part["value"] for part in message if part["type"] == kind] for kind in self.allowed_types}
        request = Request(task=Task.COMPREHENSION, question="\n".join(found["text"]), images=found["image"])
        [result] = self._worker.run([request])
        if isinstance(result, Failure):
            return f"{_FAILED}: {result.reason}"
        assert isinstance(result, Answer)
        return result.text


def main(words: Sequence[str] | None = None) -> None:
    """Adds the model to the kit's and runs the kit."""
    parser = argparse.ArgumentParser(
        description="Score HealthGPT with VLMEvalKit; other flags are the kit's.", allow_abbrev=False
    )
    parser.add_argument("--pretrained", required=True, help="a model folder, nano, m3, l14, xl32 or a hub id")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument("--dtype", default="auto", help="auto, FP32, FP16 or BF16")
    parser.add_argument("--max_new_tokens", type=int, default=1024, help="bound on an answer's length")
    flags, rest = parser.parse_known_args(words)
    name = f"healthgpt-{Path(flags.pretrained).name}"
    importlib.import_module("vlmeval.config").supported_VLM[name] = partial(HealthGPTModel, **vars(flags))
    run = _kit_main()
    sys.argv = [sys.argv[0], "--model", name, *rest]  # the kit parses nothing else
    run()


def _kit_main() -> Callable[[], None]:
    for module in ("vlmeval.run", "run"):
        if importlib.util.find_spec(module):
            return importlib.import_module(module).main
    raise SystemExit("VLMEvalKit's run.py is not there: start this in the folder of its checkout")


if __name__ == "__main__":
    main()
