"""An OpenAI-compatible chat-completions endpoint: prompts in, replies out, several at once.

The only file that knows the `openai` library, which it imports when it is used. Requests run in an event loop that
turns while somebody waits for replies, so that Ctrl-C cancels all of them at once and no thread has to end first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

TEMPERATURE = 0.0
_NO_KEY = "none"  # servers without keys ignore it, and the library wants one
_OF_THE_PROMPT = (400, 413, 422)  # status codes for which another prompt may be taken
_SHOWN = 300  # characters of a server's message


class EndpointError(Exception):
    """An endpoint that cannot be reached, refuses to work or answers otherwise: one line, without the key."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What came back for a prompt.

    Attributes:
        error: why the endpoint refused this prompt, though it takes others.
    """

    text: str = ""
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A model behind an endpoint, asked at temperature 0.

    Attributes:
        url: the base, such as http://localhost:8000/v1.
        key: sent to the endpoint; empty where it needs none.
        concurrency: requests at once.
        timeout: seconds to wait for a reply.
        retries: of a request that met status 408, 409, 429 or 5xx or no connection, after a growing pause.
        max_tokens: most tokens of a reply.

    Raises:
        ValueError: a value that makes no sense, or the library is not installed.
    """

    url: str
    model: str
    key: str = field(default="", repr=False)
    concurrency: int = 8
    timeout: float = 120.0
    retries: int = 5
    max_tokens: int = 1024

    def __post_init__(self) -> None:
        host_of(self.url)
        if not (self.key.isascii() and self.key.isprintable()):
            raise ValueError("the endpoint's key has characters that no key has; look at its environment variable")
        for name, least in (("concurrency", 1), ("timeout", 1), ("retries", 0), ("max_tokens", 1)):
            if not getattr(self, name) >= least:
                raise ValueError(f"the endpoint's {name} is {getattr(self, name)}, expected at least {least}")
        _openai()

    def ask(self, prompts: Iterable[str], *, works: bool = False) -> Generator[list[tuple[int, Reply]], None, None]:
        """Asks all prompts; yields replies as they come, each with its prompt's position.

        Args:
            works: it is known to take prompts of this kind. Otherwise refusals are given out only after it took
                another prompt: as long as it refuses all of them, they are not to blame.

        Raises:
            EndpointError: it does not work; all replies that came before have been yielded.
        """
        held: list[tuple[int, Reply]] = []
        with closing(self._replies(prompts)) as coming:
            for replies in coming:
                works = works or any(reply.error is None for _, reply in replies)
                held += replies
                if works:
                    yield held
                    held = []
                elif len(held) >= self.concurrency:
                    break
        if held:
            raise EndpointError(str(held[0][1].error))

    def _replies(self, prompts: Iterable[str]) -> Generator[list[tuple[int, Reply]], None, None]:
        waiting = iter(enumerate(prompts))
        running: set[asyncio.Task[tuple[int, Reply]]] = set()
        with asyncio.Runner() as runner:
            client = self._client()
            try:
                while True:
                    for place, prompt in islice(waiting, self.concurrency - len(running)):
                        running.add(runner.get_loop().create_task(self._reply(client, place, prompt)))
                    if not running:
                        return
                    done, running = runner.run(_first_of(running))
                    failed = [error for task in done if (error := task.exception())]
                    if replies := [task.result() for task in done if not task.exception()]:
                        yield replies
                    if failed:
                        raise failed[0]
            finally:
                runner.run(_end(running, client))

    def _client(self) -> Any:
        return _openai().AsyncOpenAI(
            base_url=_base(self.url), api_key=self.key or _NO_KEY, timeout=self.timeout, max_retries=self.retries
        )

    async def _reply(self, client: Any, place: int, prompt: str) -> tuple[int, Reply]:
        openai = _openai()
        try:
            found = await client.chat.completions.create(
                model=self.model,
                messages=[{"role": "user", "content": prompt}],
                temperature=TEMPERATURE,
                max_tokens=self.max_tokens,
            )
            text = found.choices[0].message.content or ""
        except openai.APITimeoutError:
            raise self._error(f"gave no reply within {self.timeout:g} seconds") from None
        except openai.APIConnectionError as error:
            raise self._error(f"cannot be reached: {error.__cause__ or error}") from None
        except openai.APIStatusError as error:
            refusal = self._error(f"answers with status {error.status_code}: {_said(error.body) or 'nothing more'}")
            if error.status_code not in _OF_THE_PROMPT:
                raise refusal from None
            return place, Reply(error=str(refusal))
        except (openai.OpenAIError, ValueError, AttributeError, TypeError, IndexError):  # a web page, for instance
            raise self._error("answers with what is no chat completion; expected a base such as .../v1") from None
        return place, Reply(text=self._without_key(text))

    def _error(self, text: str) -> EndpointError:
        return EndpointError(self._without_key(f"{host_of(self.url)} {' '.join(text.split())}"))

    def _without_key(self, text: str) -> str:
        return text.replace(self.key, "***") if self.key else text


def host_of(url: str) -> str:
    """Host and port of an endpoint, without the credentials that may stand before them.

    Raises:
        ValueError: it is no such address.
    """
    expected = "expected an address such as http://localhost:8000/v1"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(f"the endpoint's address cannot be read; {expected}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"the endpoint's address is {url.rpartition('@')[2]!r}, {expected}")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{host}:{port}" if port else host


def _base(url: str) -> str:
    """The base of an address that may have been copied whole."""
    return url.rstrip("/").removesuffix("/chat/completions")


def _said(body: object) -> str:
    """The message in an error's body, which is an object, a text or nothing."""
    message = body.get("message") or body.get("detail") or body if isinstance(body, dict) else body
    return " ".join(str(message or "").split())[:_SHOWN]


async def _first_of(tasks: set[asyncio.Task[Any]]) -> tuple[set[asyncio.Task[Any]], set[asyncio.Task[Any]]]:
    return await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)


async def _end(tasks: set[asyncio.Task[Any]], client: Any) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await client.close()


def _openai() -> Any:
    try:
        import openai
    except ImportError:
        raise ValueError("a language model as judge needs openai: pip install 'healthgpt[judge]'") from None
    return openai
