"""What happens to the image: it is opened, looked at in other ways, and let go of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from healthgpt.serving.app import markup
from healthgpt.serving.app.examples import EXAMPLES
from healthgpt.serving.app.opening import Looking, Opened, open_files, plainly
from healthgpt.serving.app.page import MODEL_VIEW, Page
from healthgpt.serving.app.sessions import Session, Sessions
from healthgpt.serving.residents import Residents

# Of events of the page: not for programs, and as many at once as gradio has threads for.
EVENT: dict[str, Any] = {"api_visibility": "private", "concurrency_limit": 16, "show_progress": "hidden"}
Updates = dict[Any, Any]


class ImageEvents:
    """
    Args:
        fetch: gives the bytes of an image at an address; None where such are off.
    """

    def __init__(
        self, page: Page, residents: Residents, sessions: Sessions, fetch: Callable[[str], bytes] | None = None
    ):
        self._page, self._residents, self._sessions, self._fetch = page, residents, sessions, fetch

    def bind(self) -> None:
        """Connects the components."""
        image, talk = self._page.image, self._page.talk
        outputs = [
            self._page.notice, image.film, image.controls, image.window, image.plane, image.slice, image.view,
            image.upload, image.remove, talk.log, talk.live, talk.instruction,
        ]  # fmt: skip
        image.upload.upload(self.open_upload, [image.upload, talk.model], outputs, **EVENT)
        image.examples.select(self.open_example, [talk.model], outputs, **EVENT)
        image.remove.click(self.remove, None, outputs, **EVENT)
        if image.address is not None:
            for event in (image.fetch.click, image.address.submit):
                event(self.open_address, [image.address, talk.model], outputs, **EVENT)
        look = [image.window, image.plane, image.slice, image.view, talk.model]
        for event in (image.window.input, image.slice.input, image.view.input, talk.model.input):
            event(self.look, look, [image.film], trigger_mode="always_last", **EVENT)
        image.plane.input(self.turn, look, [image.film, image.slice], trigger_mode="always_last", **EVENT)

    def open_upload(self, request: gr.Request, uploads: Sequence[str] | None, model: str) -> Updates:
        """Opens uploaded files."""
        session = self._sessions.of(request.session_hash)
        if not uploads:
            return self._nothing_open()
        return self._opening(session, model, lambda: session.open([Path(upload) for upload in uploads]))

    def open_address(self, request: gr.Request, address: str, model: str) -> Updates:
        """Fetches and opens an image of the web."""
        session, fetch, address = self._sessions.of(request.session_hash), self._fetch, address.strip()
        assert fetch
        return self._opening(session, model, lambda: session.open_bytes(fetch(address), address))

    def open_example(self, request: gr.Request, event: gr.EventData, model: str) -> Updates:
        """Opens an example and says what to ask of it."""
        session = self._sessions.of(request.session_hash)
        example = EXAMPLES[int(event.index) % len(EXAMPLES)]
        said = {self._page.talk.instruction: gr.update(value=example.instruction)}
        image = example.image
        if image is None:
            session.close()
            return self._nothing_open() | said
        opening = self._opening(session, model, lambda: session.show(open_files([image])), example.window)
        return opening | said

    def remove(self, request: gr.Request) -> Updates:
        """Lets go of the image."""
        self._sessions.of(request.session_hash).close()
        return self._nothing_open()

    def look(
        self, request: gr.Request, window: str | None, plane: str | None, place: float, view: str, model: str
    ) -> str:
        """Another window, slice or view of the open image."""
        session = self._sessions.of(request.session_hash)
        session.looking = Looking.of(window, int(place) - 1, plane)
        return self._film(session, model, view == MODEL_VIEW)

    def turn(
        self, request: gr.Request, window: str | None, plane: str | None, place: float, view: str, model: str
    ) -> tuple[str, Any]:
        """Another plane, from its middle."""
        opened = self._sessions.of(request.session_hash).opened
        if opened is None:
            return markup.no_film(), gr.update()
        try:
            count = opened.num_slices(plane.lower() if plane else None)
        except ValueError as error:
            return markup.film_error(opened.name, sentence(plainly(error))), gr.update()
        return self.look(request, window, plane, count // 2 + 1, view, model), _slices(count)

    def _opening(self, session: Session, model: str, open_it: Callable[[], Opened], window: str = "auto") -> Updates:
        image = self._page.image
        try:
            opened = open_it()
            windows, planes, count = opened.windows, opened.planes, opened.num_slices(None)
            session.looking = Looking(window=window)
        except (ValueError, OSError) as error:
            session.close()
            return self._nothing_open() | {self._page.notice: markup.notice(sentence(plainly(error)))}
        return self._cleared() | {
            image.film: self._film(session, model, True),
            image.controls: gr.update(visible=True),
            image.window: gr.update(choices=windows or [("As stored", "auto")], value=window, visible=bool(windows)),
            image.plane: gr.update(
                choices=[plane.capitalize() for plane in planes],
                value=planes[0].capitalize() if planes else None,
                visible=bool(planes),
            ),
            image.slice: _slices(count),
            image.view: gr.update(value=MODEL_VIEW),
            image.upload: gr.update(value=None, label="Another image, series or volume"),
            image.remove: gr.update(visible=True),
        }

    def _nothing_open(self) -> Updates:
        image = self._page.image
        return self._cleared() | {
            image.film: markup.no_film(),
            image.controls: gr.update(visible=False),
            image.upload: gr.update(value=None),
            image.remove: gr.update(visible=False),
        }

    def _cleared(self) -> Updates:
        """Another image begins another conversation."""
        talk = self._page.talk
        return {self._page.notice: markup.notice(), talk.log: markup.empty_conversation(), talk.live: ""}

    def _film(self, session: Session, model: str, of_model: bool) -> str:
        if session.opened is None:
            return markup.no_film()
        name = session.opened.name
        try:
            seen = session.seen()
            assert seen
            picture = self._residents.get(model).seen(seen.picture()) if of_model else seen.native()
            return markup.film(name, seen, picture, of_model)
        except (ValueError, OSError) as error:
            return markup.film_error(name, sentence(plainly(error).removeprefix(f"{name}: ")))


def sentence(words: str) -> str:
    """An error as a sentence; the name of a file at its beginning stays as it is."""
    first = words.split(" ", 1)[0]
    begun = words if "." in first or "_" in first else words[:1].upper() + words[1:]
    return begun + ("" if words.endswith((".", "!", "?", ")")) else ".")


def _slices(count: int) -> Any:
    return gr.update(maximum=max(2, count), value=count // 2 + 1, visible=count > 1, label=f"Slice, of {count}")
