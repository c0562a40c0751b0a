"""What each open page has, and nobody else sees: an image, a conversation, a folder. Gone soon after the page is."""

from __future__ import annotations

import dataclasses
import os
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from healthgpt.images import Seen, read_scan
from healthgpt.serving.app.decoding import Chosen
from healthgpt.serving.app.opening import Looking, Opened, open_files, plainly
from healthgpt.tasks import Task

if TYPE_CHECKING:
    from PIL import Image

_MOST_TURNS = 40
_MOST_SESSIONS = 200


@dataclass(kw_only=True)
class Turn:
    """An instruction and what came of it.

    Attributes:
        number: of this turn on its page.
        reason: why the task was chosen; None where the user chose it.
        shown: what the model saw. source: where that comes from. file: its name.
        chosen: how it is decoded.
        picture: of a drawing, share: how much of it is drawn.
        done: nothing more comes. stopped: the user does not want more, or did not let it end.
        error: what went wrong, in one line.
    """

    instruction: str
    task: Task
    reason: str | None
    model: str
    chosen: Chosen = field(default_factory=Chosen)
    shown: Image.Image | None = None
    source: Seen | None = None
    file: str = ""
    answer: str = ""
    picture: Image.Image | None = None
    share: float = 0.0
    seconds: float = 0.0
    done: bool = False
    stopped: bool = False
    error: str | None = None
    began: float = field(default_factory=time.time)
    number: int = 0


class Session:
    """One page's belongings.

    Attributes:
        token: nobody can guess it; addresses of downloads hold it.
        opened: the open image, and looking: how it is looked at.
        turns: the conversation, oldest first. comparing: the two turns that were compared last.
        used: when it was last needed, on the monotonic clock.
    """

    def __init__(self, parent: Path):
        self.token = secrets.token_urlsafe(24)
        self.opened: Opened | None = None
        self.looking = Looking()
        self.turns: list[Turn] = []
        self.comparing: list[Turn] = []
        self.used = time.monotonic()
        self._parent = parent
        self._folder: Path | None = None
        self._count = 0

    def open(self, uploads: Sequence[Path]) -> Opened:
        """Takes uploads into its own folder and opens them; what was open before is gone, as is the conversation.

        Raises:
            ValueError: they cannot be read; then nothing is open.
        """
        self.close()
        self._folder = Path(tempfile.mkdtemp(dir=self._parent))
        try:
            self.opened = open_files([self._taken(path, number) for number, path in enumerate(uploads)])
        except ValueError:
            self.close()
            raise
        except OSError:
            self.close()
            raise ValueError("the upload is not here any more; please upload it again") from None
        return self.opened

    def open_bytes(self, data: bytes, name: str) -> Opened:
        """Opens an image that is in memory, as `open`."""
        self.close()
        try:
            scan = read_scan(data)
        except ValueError as error:
            raise ValueError(plainly(error)) from None
        self.opened = Opened(name=name, scan=dataclasses.replace(scan, name=name))
        return self.opened

    def show(self, opened: Opened) -> Opened:
        """Opens what needs no folder: one of the examples."""
        self.close()
        self.opened = opened
        return opened

    def close(self) -> None:
        """Lets go of the image and of the conversation about it; what is under way ends."""
        self.forget()
        self.opened, self.looking = None, Looking()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def seen(self) -> Seen | None:
        """What is looked at.

        Raises:
            ValueError: the window does not fit.
        """
        return self.opened.seen(self.looking) if self.opened else None

    def add(self, turn: Turn) -> None:
        """Puts a turn behind the others; of very long conversations the oldest are forgotten."""
        self._count += 1
        turn.number = self._count
        self.turns = [*self.turns, turn][-_MOST_TURNS:]

    def compare(self, turns: Sequence[Turn]) -> None:
        """Takes two turns beside each other in the place of those before."""
        self.stop()
        for turn in turns:
            self._count += 1
            turn.number = self._count
        self.comparing = list(turns)

    def stop(self) -> None:
        """Ends what is under way."""
        for turn in (*self.turns, *self.comparing):
            turn.stopped = turn.stopped or not turn.done

    def forget(self) -> None:
        """Ends what is under way, and forgets the conversation."""
        self.stop()
        self.turns, self.comparing = [], []

    def history(self) -> list[tuple[str, str]]:
        """Questions and whole answers so far, as the model is told of them."""
        return [
            (turn.instruction, turn.answer)
            for turn in self.turns
            if turn.task is Task.COMPREHENSION and turn.done and not (turn.error or turn.stopped) and turn.answer
        ]

    def _taken(self, upload: Path, number: int) -> Path:
        """The file in its own folder. The upload stays: gradio gives equal ones of two users the same place."""
        assert self._folder
        target = self._folder / upload.name
        if target.exists():
            target = self._folder / f"{number}-{upload.name}"
        try:
            os.link(upload, target)
        except OSError:
            shutil.copyfile(upload, target)
        return target


class Sessions:
    """The sessions of all open pages, by the ids that gradio gives them.

    Args:
        folder: where each makes its own; readable by this user alone.
        grace: seconds that a session is kept after its page went away, for connections that come back.
        idle: seconds after which one is given up whose page never said that it went away.
    """

    def __init__(self, folder: Path, *, grace: float = 120, idle: float = 6 * 3600):
        self._folder, self._grace, self._idle = folder, grace, idle
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}
        self._leaving: dict[str, float] = {}

    def of(self, page: str | None) -> Session:
        """A page's session.

        Raises:
            ValueError: it has no id, so that it could be anyone's.
        """
        if not page:
            raise ValueError("this belongs to a page; programs use /answer and /draw")
        now = time.monotonic()
        with self._lock:
            gone = self._take_old(now)
            session = self._sessions.pop(page, None) or Session(self._folder)
            self._sessions[page] = session  # behind all others
            self._leaving.pop(page, None)
            session.used = now
        for old in gone:
            old.close()
        return session

    def leave(self, page: str | None) -> None:
        """A page went away."""
        with self._lock:
            if page in self._sessions:
                self._leaving[page] = time.monotonic() + self._grace
        timer = threading.Timer(self._grace + 1, self.sweep)
        timer.daemon = True
        timer.start()

    def sweep(self) -> None:
        """Lets go of what nobody needs any more."""
        with self._lock:
            gone = self._take_old(time.monotonic())
        for session in gone:
            session.close()

    def with_token(self, token: str) -> Session | None:
        """The session that a download's address belongs to."""
        with self._lock:
            known = list(self._sessions.values())
        return next((session for session in known if secrets.compare_digest(session.token, token)), None)

    def close(self) -> None:
        """Lets go of all."""
        with self._lock:
            gone = list(self._sessions.values())
            self._sessions.clear()
            self._leaving.clear()
        for session in gone:
            session.close()

    def __len__(self) -> int:
        return len(self._sessions)

    def _take_old(self, now: float) -> list[Session]:
        """Those whose time has come; beyond a number, those that were not used for longest."""
        old = [key for key, until in self._leaving.items() if until <= now]
        old += [key for key, session in self._sessions.items() if session.used + self._idle <= now and key not in old]
        left = [key for key in self._sessions if key not in old]
        old += left[: max(0, len(left) - _MOST_SESSIONS)]
        for key in old:
            self._leaving.pop(key, None)
        return [self._sessions.pop(key) for key in old]
