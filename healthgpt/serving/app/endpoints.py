"""The same for programs: endpoints of gradio_client, which have no page and keep nothing.

client = Client("http://127.0.0.1:7860")
client.predict("Which organ is this?", handle_file("ct.png"), api_name="/answer")
client.predict("Turn this CT into an MRI.", handle_file("ct.png"), api_name="/draw")
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from healthgpt.serving.app.decoding import MOST_TOKENS, Chosen
from healthgpt.serving.app.opening import Looking, open_files, plainly
from healthgpt.serving.app.routing import choose_task
from healthgpt.serving.app.running import run
from healthgpt.serving.app.sessions import Turn
from healthgpt.serving.residents import Residents
from healthgpt.tasks import Task

_EVENT: dict[str, Any] = {"concurrency_limit": 16, "show_progress": "hidden"}


class Endpoints:
    """`/answer`, `/draw`, `/route` and `/models`."""

    def __init__(self, residents: Residents):
        self._residents = residents

    def bind(self) -> None:
        """Adds the endpoints, and components for their types, to the page; nobody sees them."""
        with gr.Row(visible=False):
            question = gr.Textbox(label="Question")
            image = gr.File(label="Image")
            model = gr.Textbox(label="Model", value="")
            window = gr.Textbox(label="Window", value="auto")
            place = gr.Number(label="Slice", precision=0, value=None)
            plane = gr.Textbox(label="Plane", value="")
            has_image = gr.Checkbox(label="Has image", value=True)
            settings = [
                gr.Checkbox(label="Do sample"),
                gr.Number(label="Temperature", value=1.0),
                gr.Number(label="Top p", value=1.0),
                gr.Number(label="Num beams", precision=0, value=1),
                gr.Number(label="Repetition penalty", value=0.0),
                gr.Number(label="Max new tokens", precision=0, value=MOST_TOKENS),
                gr.Number(label="Seed", precision=0, value=None),
            ]
            text, picture = gr.Textbox(label="Answer"), gr.Image(label="Drawing", format="png", type="pil")
            facts, button = gr.JSON(label="Facts"), gr.Button()
        asked = [question, image, model, window, place, plane, *settings]
        for handler, inputs, output, name in (
            (self.answer, asked, text, "answer"),
            (self.draw, asked, picture, "draw"),
            (self.route, [question, has_image], facts, "route"),
            (self.models, [], facts, "models"),
        ):
            button.click(handler, inputs, output, api_name=name, **_EVENT)

    def answer(
        self,
        question: str,
        image: str | None = None,
        model: str = "",
        window: str = "auto",
        slice: int | None = None,
        plane: str = "",
        do_sample: bool = False,
        temperature: float = 1.0,
        top_p: float = 1.0,
        num_beams: int = 1,
        repetition_penalty: float = 0.0,
        max_new_tokens: int = MOST_TOKENS,
        seed: int | None = None,
    ) -> Iterator[str]:
        """Answers a question about an image, if one is given; the text so far, again and again, at last all of it."""
        with _told():
            chosen = Chosen.of((do_sample, temperature, top_p, num_beams, repetition_penalty, max_new_tokens, seed))
            turn = self._turn(Task.COMPREHENSION, question, image, model, Looking.of(window, slice, plane), chosen)
            for _ in run(self._residents, turn):
                yield turn.answer
            _check(turn)
        yield turn.answer

    def draw(
        self,
        question: str,
        image: str | None = None,
        model: str = "",
        window: str = "auto",
        slice: int | None = None,
        plane: str = "",
        do_sample: bool = False,
        temperature: float = 1.0,
        top_p: float = 1.0,
        num_beams: int = 1,
        repetition_penalty: float = 0.0,
        max_new_tokens: int = MOST_TOKENS,
        seed: int | None = None,
    ) -> Image.Image | None:
        """Draws what an instruction asks for, from an image or from the words alone."""
        with _told():
            chosen = Chosen.of((do_sample, temperature, top_p, num_beams, repetition_penalty, max_new_tokens, seed))
            turn = self._turn(Task.GENERATION, question, image, model, Looking.of(window, slice, plane), chosen)
            for _ in run(self._residents, turn):
                pass
            _check(turn)
        return turn.picture

    def route(self, question: str, has_image: bool = True) -> dict[str, str]:
        """The task that an instruction asks for, and why."""
        choice = choose_task(question, has_image)
        return {"task": choice.task.value, "reason": choice.reason}

    def models(self) -> list[str]:
        """The models that are here, the default first."""
        return list(self._residents.names)

    def _turn(self, task: Task, question: str, image: str | None, model: str, looking: Looking, chosen: Chosen) -> Turn:
        if not question.strip():
            raise ValueError("the question is empty")
        seen = open_files([Path(image)]).seen(looking) if image else None
        return Turn(
            instruction=question,
            task=task,
            reason=None,
            model=self._residents.known(model or None),
            chosen=chosen,
            source=seen,
        )


def _check(turn: Turn) -> None:
    if turn.error:
        raise ValueError(turn.error)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Lets programs know in one line what was wrong."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise gr.Error(plainly(error), print_exception=False) from None
