"""A turn of a conversation: what it is to be, and step by step what comes of it."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Generator, Mapping, Sequence
from typing import Any

from PIL import Image

from healthgpt.exchange import Answer, Drawing
from healthgpt.pipeline import HealthGPT
from healthgpt.serving.app.decoding import Chosen
from healthgpt.serving.app.opening import plainly
from healthgpt.serving.app.routing import choose_task
from healthgpt.serving.app.sessions import Session, Turn
from healthgpt.serving.residents import Residents
from healthgpt.streaming import PartialDrawing
from healthgpt.tasks import Task

logger = logging.getLogger(__name__)
_SECONDS_BETWEEN_TEXTS, _SECONDS_BETWEEN_PICTURES = 0.04, 0.12
_UNFORESEEN = "something went wrong on the server; its log says what"

Steps = Generator[None, None, None]


def begin(session: Session, instruction: str, task: Task | None, model: str, chosen: Chosen) -> Turn:
    """A new turn about what the session has open.

    Args:
        task: None where the instruction is to decide.

    Raises:
        ValueError: there is nothing to do, or the image cannot be looked at so.
    """
    if not instruction.strip():
        raise ValueError("write a question or an instruction first")
    seen, reason = session.seen(), None
    if task is None:
        choice = choose_task(instruction, seen is not None)
        task, reason = choice.task, choice.reason
    return Turn(
        instruction=instruction.strip(),
        task=task,
        reason=reason,
        model=model,
        chosen=chosen,
        source=seen,
        file=session.opened.name if session.opened else "",
    )


def run(residents: Residents, turn: Turn, history: Sequence[tuple[str, str]] = ()) -> Steps:
    """Carries out a turn with its model, which is loaded where it is not yet; steps as `carry_out`."""
    try:
        model = residents.get(turn.model)
        image = turn.source.picture() if turn.source else None
        turn.shown = model.seen(image) if image else None
    except (ValueError, OSError) as error:
        turn.error, turn.done = plainly(error), True
        return
    yield from carry_out(model, turn, image, history, turn.chosen.keywords())


def carry_out(
    model: HealthGPT,
    turn: Turn,
    image: Image.Image | None,
    history: Sequence[tuple[str, str]],
    decoding: Mapping[str, Any],
) -> Steps:
    """Answers or draws, into the turn; steps whenever there is something new in it. Closing ends it early.

    Whatever goes wrong is in the turn's `error`, never raised.
    """
    start = time.perf_counter()
    try:
        steps = _answer(model, turn, image, history, decoding) if turn.task is Task.COMPREHENSION else _draw(
            model, turn, image, decoding
        )  # fmt: skip
        with contextlib.closing(steps):
            for _ in steps:
                turn.seconds = time.perf_counter() - start
                yield
                if turn.stopped:
                    break
    except GeneratorExit:
        turn.stopped = True
        raise
    except (ValueError, OSError, MemoryError) as error:
        turn.error = plainly(error)
    except Exception:
        logger.exception("a turn failed")
        turn.error = _UNFORESEEN
    finally:
        turn.seconds, turn.done = time.perf_counter() - start, True


def _answer(
    model: HealthGPT,
    turn: Turn,
    image: Image.Image | None,
    history: Sequence[tuple[str, str]],
    decoding: Mapping[str, Any],
) -> Steps:
    if decoding.get("num_beams", 1) > 1:  # beams are known only when all is
        answer: Answer = model.answer(turn.instruction, image, history=history, return_details=True, **decoding)
        turn.answer = answer.text
        yield
        return
    shown = 0.0
    pieces = model.stream(turn.instruction, image, history=history, **decoding)
    with contextlib.closing(pieces):  # type: ignore[type-var]
        for piece in pieces:
            turn.answer += piece
            if time.perf_counter() - shown >= _SECONDS_BETWEEN_TEXTS:
                yield
                shown = time.perf_counter()
    yield


def _draw(model: HealthGPT, turn: Turn, image: Image.Image | None, decoding: Mapping[str, Any]) -> Steps:
    decoding = {name: value for name, value in decoding.items() if name != "max_new_tokens"}
    if decoding.get("num_beams", 1) > 1:
        turn.picture, turn.share = model.draw(turn.instruction, image, **decoding), 1.0
        yield
        return
    shown = 0.0
    parts = model.stream_drawing(turn.instruction, image, **decoding)
    with contextlib.closing(parts):  # type: ignore[type-var]
        for part in parts:
            if isinstance(part, Drawing):
                turn.picture, turn.share = part.image, 1.0
            elif time.perf_counter() - shown >= _SECONDS_BETWEEN_PICTURES:
                assert isinstance(part, PartialDrawing)
                turn.picture, turn.share = part.image, part.share
                yield
                shown = time.perf_counter()
    yield
