"""What happens in the conversation, in the comparison of two settings, and to the sheet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from healthgpt.serving.app import markup
from healthgpt.serving.app.decoding import Chosen
from healthgpt.serving.app.image_events import EVENT, Updates, sentence
from healthgpt.serving.app.opening import plainly
from healthgpt.serving.app.page import ANALYZE, GENERATE, Page
from healthgpt.serving.app.report import sheet
from healthgpt.serving.app.running import begin, run
from healthgpt.serving.app.sessions import Sessions, Turn
from healthgpt.serving.residents import Residents
from healthgpt.tasks import Task

_TASKS = {ANALYZE: Task.COMPREHENSION, GENERATE: Task.GENERATION}


class TalkEvents:
    """Turns of conversations and comparisons."""

    def __init__(self, page: Page, residents: Residents, sessions: Sessions):
        self._page, self._residents, self._sessions = page, residents, sessions

    def bind(self) -> None:
        """Connects the components."""
        notice, talk, compare, report = self._page.notice, self._page.talk, self._page.compare, self._page.report
        outputs = [notice, talk.log, talk.live, talk.said, talk.instruction, talk.send, talk.stop]
        # Enter clicks, too (head.html); of several lines, gradio's own submit would be Shift+Enter.
        talk.send.click(
            self.say,
            [talk.instruction, talk.mode, talk.model, *talk.controls.all],
            outputs,
            **EVENT,
        )
        talk.clear.click(self.clear, None, outputs, **EVENT)
        compare.run.click(
            self.compare,
            [compare.instruction, compare.mode, *compare.models, *compare.controls[0].all, *compare.controls[1].all],
            [notice, *compare.results, compare.verdict, compare.run, compare.stop],
            **EVENT,
        )
        for button in (talk.stop, compare.stop):
            button.click(self.stop, None, None, queue=False, **EVENT)
        report.tab.select(self.report, outputs=report.sheet, **EVENT)

    def say(self, request: gr.Request, instruction: str, mode: str, model: str, *settings: Any) -> Iterator[Updates]:
        """Answers or draws, and shows it as it comes."""
        session, talk = self._sessions.of(request.session_hash), self._page.talk
        try:
            turn = begin(session, instruction, _TASKS.get(mode), self._residents.known(model), Chosen.of(settings))
        except (ValueError, OSError) as error:
            yield {self._page.notice: markup.notice(sentence(plainly(error)))}
            return
        history = session.history()
        session.add(turn)
        yield {
            self._page.notice: markup.notice(),
            talk.log: markup.conversation(session),
            talk.live: markup.one_turn(turn, session.token),
            talk.said: markup.said(f"{markup.TASK_NAMES[turn.task]}: under way"),
            talk.instruction: gr.update(value=""),
            talk.send: gr.update(visible=False),
            talk.stop: gr.update(visible=True),
        }
        for _ in run(self._residents, turn, history):
            yield {talk.live: markup.one_turn(turn, session.token)}
        yield {
            talk.log: markup.conversation(session) or markup.empty_conversation(),
            talk.live: "",
            talk.said: markup.said(_outcome(turn)),
            talk.send: gr.update(visible=True),
            talk.stop: gr.update(visible=False),
        }

    def stop(self, request: gr.Request) -> None:
        """Ends what is under way; the handler that carries it out shows how far it came."""
        self._sessions.of(request.session_hash).stop()

    def clear(self, request: gr.Request) -> Updates:
        """Begins another conversation about the same image."""
        session, talk = self._sessions.of(request.session_hash), self._page.talk
        session.forget()
        return {
            self._page.notice: markup.notice(),
            talk.log: markup.empty_conversation(),
            talk.live: "",
            talk.said: markup.said("A new conversation"),
        }

    def compare(
        self, request: gr.Request, instruction: str, mode: str, first: str, second: str, *settings: Any
    ) -> Iterator[Updates]:
        """Does the same with two settings, one after the other."""
        session, compare, half = self._sessions.of(request.session_hash), self._page.compare, len(settings) // 2
        try:
            turns = [
                begin(session, instruction, _TASKS.get(mode), self._residents.known(model), Chosen.of(values))
                for model, values in ((first, settings[:half]), (second, settings[half:]))
            ]
        except (ValueError, OSError) as error:
            yield {self._page.notice: markup.notice(sentence(plainly(error)))}
            return
        session.compare(turns)
        yield {
            self._page.notice: markup.notice(),
            compare.verdict: "",
            compare.run: gr.update(visible=False),
            compare.stop: gr.update(visible=True),
        } | dict.fromkeys(compare.results, "")
        for turn, result in zip(turns, compare.results, strict=True):
            if turn.stopped:
                break
            for _ in run(self._residents, turn):
                yield {result: markup.one_turn(turn, session.token)}
            yield {result: markup.one_turn(turn, session.token)}
        yield {
            compare.verdict: markup.verdict(*turns),
            compare.run: gr.update(visible=True),
            compare.stop: gr.update(visible=False),
        }

    def report(self, request: gr.Request) -> str:
        """The conversation as a sheet to be printed."""
        return sheet(self._sessions.of(request.session_hash))


def _outcome(turn: Turn) -> str:
    if turn.error:
        return f"It did not work: {turn.error}"
    if turn.stopped:
        return "Stopped"
    return f"Answer: {turn.answer}" if turn.task is Task.COMPREHENSION else "The picture is drawn"
