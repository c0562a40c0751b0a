"""`/v1/images/generations` and `/v1/images/edits`: images drawn from text, or from text and images."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Sequence
from typing import Any

from PIL import Image

from healthgpt.exchange import Request
from healthgpt.serving.api.conversation import ImageInput
from healthgpt.serving.api.decoding import choices_of, decoding_of
from healthgpt.serving.api.errors import refused
from healthgpt.serving.api.forms import check_prompt
from healthgpt.serving.api.logs import Trace
from healthgpt.serving.api.protocol import Drawings, DrawingUsage, DrawnImage, DrawRequest, InputTokens
from healthgpt.serving.api.service import Service
from healthgpt.tasks import Task


async def draw(service: Service, trace: Trace, asked: DrawRequest, images: Sequence[ImageInput]) -> Drawings:
    """Draws what is asked for, `n` times."""
    name, model = service.model(asked.model)
    size = model.drawing_size
    if Task.GENERATION not in model.tasks or size is None:
        raise refused("this model cannot draw", param="model", code="model_without_task")
    prompt = check_prompt(asked, service.limits)
    shown = f"{size[0]}x{size[1]}"
    if asked.size not in (None, "auto", shown):
        raise refused(f"size: is {asked.size!r}, and this model draws {shown}", param="size")
    count = asked.n or 1
    trace.facts |= {"model": name, "task": str(Task.GENERATION), "images": len(images), "choices": count}
    pictures = await service.see(images, model, trace)
    request = Request(task=Task.GENERATION, question=prompt, images=pictures)
    jobs = [service.job(request, decoding, trace) for decoding in choices_of(decoding_of(asked), count)]
    results: list[Any] = await service.run(name, jobs)
    results *= count // len(results)
    length = model.prompt_length(results[0].prompt_ids)
    completion = sum(len(result.token_ids) for result in results)
    service.count_tokens(name, Task.GENERATION, length, completion)
    trace.facts |= {"prompt_tokens": length, "completion_tokens": completion, "batch": jobs[0].ran_with}
    trace.facts["waited"] = round(jobs[0].waited, 4)
    text = sum(token >= 0 for token in results[0].prompt_ids)
    return Drawings(
        created=int(time.time()),
        data=[DrawnImage(b64_json=_png(result.image)) for result in results],
        size=shown,
        usage=DrawingUsage(
            input_tokens=length,
            input_tokens_details=InputTokens(image_tokens=length - text, text_tokens=text),
            output_tokens=completion,
            total_tokens=length + completion,
        ),
    )


def _png(image: Image.Image) -> str:
    """Base64 of a picture's PNG."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
