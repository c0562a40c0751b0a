"""`/v1/chat/completions`: questions about images, answered whole or piece by piece."""

from __future__ import annotations

import asyncio
import functools
import json
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Literal

from fastapi.responses import StreamingResponse

from healthgpt.exchange import Answer, Request
from healthgpt.pipeline import HealthGPT
from healthgpt.serving.api.conversation import conversation_of
from healthgpt.serving.api.decoding import choices_of, decoding_of
from healthgpt.serving.api.desk import Job, Result
from healthgpt.serving.api.errors import foreseen, refused
from healthgpt.serving.api.logs import Trace
from healthgpt.serving.api.protocol import (
    ChatAnswer,
    ChatChunk,
    ChatCompletion,
    ChatRequest,
    Choice,
    ChunkChoice,
    Delta,
    Usage,
)
from healthgpt.serving.api.service import Service
from healthgpt.serving.api.stops import StoppedText, before_stop
from healthgpt.tasks import Task


@dataclass(kw_only=True)
class _Chat:
    """A request on its way.

    Attributes:
        jobs: of the choices that differ; the first serves all of them where none do.
        count: choices.
    """

    service: Service
    trace: Trace
    name: str
    model: HealthGPT
    jobs: list[Job]
    count: int
    stops: tuple[str, ...]
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def text(self, answer: Answer) -> tuple[str, Literal["stop", "length"]]:
        """An answer's text up to a stop string, and why it ends there."""
        text = before_stop(answer.text, self.stops)
        if text is not None:
            return text, "stop"
        return answer.text, "length" if answer.truncated else "stop"

    def usage(self, answers: Sequence[Answer]) -> Usage:
        """Counts the tokens, an image's patches and the tokens that end answers included."""
        prompt = self.model.prompt_length(answers[0].prompt_ids)
        completion = sum(len(answer.token_ids) for answer in answers)
        self.service.count_tokens(self.name, Task.COMPREHENSION, prompt, completion)
        first = self.jobs[0]
        self.trace.facts |= {"prompt_tokens": prompt, "completion_tokens": completion, "batch": first.ran_with}
        self.trace.facts["waited"] = round(first.waited, 4)
        return Usage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)


async def answer_chat(service: Service, trace: Trace, asked: ChatRequest) -> ChatCompletion | StreamingResponse:
    """Answers a request, at once or as a stream of events."""
    chat = await _read(service, trace, asked)
    if asked.stream:
        return await _streamed(chat, bool(asked.stream_options and asked.stream_options.include_usage))
    if chat.stops:
        for job in chat.jobs:
            job.token = _Ending(StoppedText(chat.model.settling(), chat.stops))
    answers: list[Any] = await service.run(chat.name, chat.jobs)
    answers *= chat.count // len(answers)
    choices = []
    for index, answer in enumerate(answers):
        content, reason = chat.text(answer)
        choices.append(Choice(index=index, message=ChatAnswer(content=content), finish_reason=reason))
    return ChatCompletion(id=chat.id, created=chat.created, model=chat.name, choices=choices, usage=chat.usage(answers))


async def _read(service: Service, trace: Trace, asked: ChatRequest) -> _Chat:
    """What is asked, with its images read."""
    name, model = service.model(asked.model)
    if Task.COMPREHENSION not in model.tasks:
        raise refused("this model cannot answer", param="model", code="model_without_task")
    conversation = conversation_of(asked.messages, service.limits)
    decoding = decoding_of(asked)
    if most := asked.max_completion_tokens or asked.max_tokens:
        decoding["max_new_tokens"] = most
    count = asked.n or 1
    trace.facts |= {"model": name, "task": str(Task.COMPREHENSION), "images": len(conversation.images)}
    trace.facts |= {"choices": count, "stream": bool(asked.stream)}
    request = Request(
        task=Task.COMPREHENSION,
        question=conversation.question,
        history=conversation.history,
        images=await service.see(conversation.images, model, trace),
    )
    jobs = [service.job(request, choice, trace) for choice in choices_of(decoding, count)]
    stops = (asked.stop,) if isinstance(asked.stop, str) else tuple(asked.stop or ())
    return _Chat(service=service, trace=trace, name=name, model=model, jobs=jobs, count=count, stops=stops)


class _Ending:
    """Ends an answer at a stop string."""

    def __init__(self, text: StoppedText):
        self._text = text

    def __call__(self, token: int) -> bool:
        self._text.add(token)
        return not self._text.stopped


class _Pieces:
    """The pieces of several answers as they come, from the desk's thread to the loop."""

    def __init__(self, chat: _Chat):
        self._loop = asyncio.get_running_loop()
        self._coming: asyncio.Queue[tuple[int, str | None]] = asyncio.Queue()
        self.texts = [StoppedText(chat.model.settling(), chat.stops) for _ in chat.jobs]
        for index, job in enumerate(chat.jobs):
            job.token = functools.partial(self._hear, index)
            job.future.add_done_callback(functools.partial(self._end, index))

    async def next(self) -> tuple[int, str | None]:
        """An answer's index and more of its text; None at its end."""
        return await self._coming.get()

    def _hear(self, index: int, token: int) -> bool:
        text = self.texts[index]
        if piece := text.add(token):
            self._put(index, piece)
        return not text.stopped

    def _end(self, index: int, future: Future[Result]) -> None:
        self._put(index, None)

    def _put(self, index: int, piece: str | None) -> None:
        self._loop.call_soon_threadsafe(self._coming.put_nowait, (index, piece))


async def _streamed(chat: _Chat, with_usage: bool) -> StreamingResponse:
    """A stream; what goes wrong before its first piece is an ordinary error."""
    pieces = _Pieces(chat)
    chat.service.submit(chat.name, chat.jobs)
    first = await pieces.next()
    if first[1] is None:
        chat.jobs[first[0]].future.result()
    return StreamingResponse(
        _events(chat, pieces, first, with_usage),
        media_type="text/event-stream",
        headers={"X-Accel-Buffering": "no"},
    )


async def _events(
    chat: _Chat, pieces: _Pieces, first: tuple[int, str | None], with_usage: bool
) -> AsyncIterator[bytes]:
    """The events of a stream, an error being the last one where there is one."""
    # Equal choices are streamed from one job.
    places = {i: [i] if len(chat.jobs) > 1 else list(range(chat.count)) for i in range(len(chat.jobs))}
    for index in range(chat.count):
        yield _event(_chunk(chat, index, Delta(role="assistant", content="")))
    ended: dict[int, Answer] = {}
    try:
        index, piece = first
        while True:
            if piece is None:
                answer: Any = chat.jobs[index].future.result()
                ended[index] = answer
                piece = pieces.texts[index].rest()
            for place in places[index] if piece else ():
                yield _event(_chunk(chat, place, Delta(content=piece)))
            if index in ended:
                for place in places[index]:
                    yield _event(_chunk(chat, place, Delta(), chat.text(ended[index])[1]))
                if len(ended) == len(chat.jobs):
                    break
            index, piece = await pieces.next()
    except Exception as error:
        yield _event(foreseen(error).body())
        return
    answers = [ended[i] for i in sorted(ended)]
    usage = chat.usage(answers * (chat.count // len(answers)))
    if with_usage:
        chunk = ChatChunk(id=chat.id, created=chat.created, model=chat.name, choices=[], usage=usage)
        yield _event(chunk.model_dump(exclude_none=True))
    yield b"data: [DONE]\n\n"


def _chunk(chat: _Chat, index: int, delta: Delta, reason: Literal["stop", "length"] | None = None) -> dict[str, Any]:
    choice = ChunkChoice(index=index, delta=delta, finish_reason=reason)
    chunk = ChatChunk(id=chat.id, created=chat.created, model=chat.name, choices=[choice])
    dumped = chunk.model_dump(exclude_none=True)
    dumped["choices"][0]["finish_reason"] = reason
    return dumped


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False).encode("utf-8", "replace") + b"\n\n"
