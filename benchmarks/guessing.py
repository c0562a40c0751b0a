"""How often codes that are guessed ahead are right, on phantoms: python benchmarks/guessing.py [--count 40]

The shipped model on two cores draws from images of the validation split, plainly and by guessing ahead, in turns; every
drawing must have the same codes. What is drawn from text alone has no image to guess from and is drawn plainly.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from report import publish

from healthgpt import HealthGPT, Request, Task
from healthgpt.cli import main as healthgpt
from healthgpt.decoding import Decoding
from healthgpt.engine.choosing import Chooser
from healthgpt.engine.drawing import draw_codes
from healthgpt.engine.prompts import EmbeddedPrompt
from healthgpt.engine.speculation import Guesser, Tally, draw_codes_ahead
from healthgpt.targets import codes_of

CORES = 2
KINDS = ("ct2mri", "mri2ct", "reconstruction", "super-resolution")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=40, help="drawings of each kind")
    parser.add_argument("--folder", type=Path, default=Path("output/guessing"))
    flags = parser.parse_args()
    torch.set_num_threads(CORES)
    prepared = ["prepare", "phantoms", "--split", "validation", "--seed", "1", "--count", str(4 * flags.count)]
    if healthgpt([*prepared, "--output", str(flags.folder)]):
        raise SystemExit("failed: healthgpt prepare phantoms")
    model = HealthGPT.from_pretrained("nano", device="cpu")
    rows = [measured(model, kind, requests_of(flags.folder / "generation" / f"{kind}.jsonl", flags)) for kind in KINDS]
    publish("guessing", rows, split="validation", seed=1)


def requests_of(path: Path, flags: argparse.Namespace) -> list[Request]:
    records = [json.loads(line) for line in path.read_text().splitlines()[: flags.count]]
    if len(records) < flags.count:
        raise SystemExit(f"{path} has {len(records)} records, expected {flags.count}")
    return [
        Request(
            task=Task.GENERATION,
            question=record["conversations"][0]["value"].removeprefix("<image>\n"),
            images=[str(path.parent / record["image"])],
        )
        for record in records
    ]


def measured(model: HealthGPT, kind: str, requests: list[Request]) -> dict[str, Any]:
    """Means over a kind's drawings."""
    tallies, plain, ahead = list[Tally](), list[float](), list[float]()
    for number, request in enumerate([requests[0], *requests]):  # the first one twice, once to warm up
        tally, *seconds = drawn(model, request)
        if number:
            tallies.append(tally)
            plain.append(seconds[0])
            ahead.append(seconds[1])
    guessed = sum(sum(tally.guessed) for tally in tallies)
    return {
        "kind": kind,
        "drawings": len(tallies),
        "passes": statistics.mean(tally.passes for tally in tallies),
        "guesses_right": sum(sum(tally.accepted) for tally in tallies) / guessed if guessed else None,
        "plain_ms": 1000 * statistics.mean(plain),
        "ahead_ms": 1000 * statistics.mean(ahead),
        "speed_up": statistics.mean(plain) / statistics.mean(ahead),
    }


@torch.inference_mode()
def drawn(model: HealthGPT, request: Request) -> tuple[Tally, float, float]:
    """How a drawing went that was guessed ahead, and the seconds of both ways, reading the prompt included."""
    vocabulary, vqgan = model._processor.image_vocabulary, model._vqgan
    assert vocabulary
    assert vqgan
    decoder, count = model._engine._decoders[Task.GENERATION], vqgan.config.num_codes
    prompt: EmbeddedPrompt = model._engine._embedded([model._prompt(request)])[0]
    grid = codes_of(vqgan, request.images[0])
    start = time.perf_counter()
    [plain] = draw_codes(decoder, Chooser(Decoding(), 1.0, 0, vocabulary), [prompt], vocabulary, count)
    middle = time.perf_counter()
    guesser = Guesser(grid.flatten().tolist(), columns=grid.shape[1])
    ids, tally = draw_codes_ahead(decoder, prompt, vocabulary, count, guesser)
    end = time.perf_counter()
    assert ids == plain, "guesses changed what is drawn"
    return tally, middle - start, end - middle


if __name__ == "__main__":
    main()
