"""From OpenAI's parameters to how tokens are chosen.

Greedy is the default, as for every other way to this model: OpenAI's own, sampling at temperature 1, would give a
patient's image another answer each time. A client that wants samples says so.
"""

from __future__ import annotations

from typing import Any

from healthgpt.serving.api.protocol import Choosing


def decoding_of(asked: Choosing) -> dict[str, Any]:
    """Keywords of `Decoding`. A temperature or nucleus of 0 is the likeliest token."""
    decoding: dict[str, Any] = {}
    nucleus = 1.0 if asked.top_p is None else asked.top_p
    temperature = asked.temperature
    if temperature is None:
        temperature = 1.0 if nucleus < 1 else 0.0
    if temperature > 0 and nucleus > 0:
        decoding |= {"do_sample": True, "temperature": temperature, "seed": asked.seed}
        if nucleus < 1:
            decoding["top_p"] = nucleus
    if asked.repetition_penalty is not None:
        decoding["repetition_penalty"] = asked.repetition_penalty
    if asked.num_beams is not None:
        decoding["num_beams"] = asked.num_beams
    return decoding


def choices_of(decoding: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """The decoding of each of several choices: samples have seeds of their own; what is not sampled is done once."""
    if not decoding.get("do_sample"):
        return [decoding]
    seed = decoding["seed"]
    return [decoding | {"seed": None if seed is None else seed + i} for i in range(count)]
