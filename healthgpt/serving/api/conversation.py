"""From the messages of a chat to what the pipeline takes: earlier turns, a question, and images before all of them."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

from healthgpt.images import View
from healthgpt.serving.api.errors import refused
from healthgpt.serving.api.image_readers import ImageFile
from healthgpt.serving.api.limits import Limits
from healthgpt.serving.api.protocol import (
    AssistantMessage,
    ImageAddress,
    ImagePart,
    Message,
    SystemMessage,
    UserMessage,
)

_DATA = re.compile(r"data:[^,;]*(?:;[^,;]*)*?;base64,", re.IGNORECASE)
_SHOWN = 24  # characters of an address that is none


@dataclass(frozen=True, kw_only=True)
class RemoteImage:
    """An image that has to be fetched."""

    url: str
    view: Mapping[str, Any]


ImageInput = ImageFile | RemoteImage


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """
    Attributes:
        history: earlier (question, answer) turns.
        images: in the order of the messages; as in training, all of them stand before the first question.
    """

    question: str
    history: tuple[tuple[str, str], ...]
    images: tuple[ImageInput, ...]


def conversation_of(messages: Sequence[Message], limits: Limits) -> Conversation:
    """Puts the messages of a chat in order.

    System messages stand before the first question, as the model knows no others than the one of its template.
    Messages in a row of one role are one turn.

    Raises:
        ApiError: turns that are not in turn, no question at the end, too many images or too much text.
    """
    system = [_text(message) for message in messages if isinstance(message, SystemMessage)]
    turns: list[tuple[str, list[str]]] = []
    images: list[ImageInput] = []
    for place, message in enumerate(messages):
        if isinstance(message, SystemMessage):
            continue
        if not turns or turns[-1][0] != message.role:
            turns.append((message.role, []))
        turns[-1][1].append(_text(message))
        if isinstance(message, UserMessage):
            images += _images(message, f"messages.{place}.content")
    if not turns or turns[0][0] != "user" or turns[-1][0] != "user":
        raise refused("the conversation has to begin and end with a message of the user", param="messages")
    texts = ["\n".join(filter(None, parts)) for _, parts in turns]
    texts[0] = "\n\n".join(filter(None, [*system, texts[0]]))
    check_text(texts, limits, "messages")
    check_count(images, limits, "messages")
    if not texts[-1].strip():
        raise refused("the last message has no text; expected a question", param="messages")
    return Conversation(
        question=texts[-1],
        history=tuple(zip(texts[:-1:2], texts[1:-1:2], strict=True)),
        images=tuple(images),
    )


def check_text(texts: Sequence[str], limits: Limits, param: str) -> None:
    """Refuses more text than a request may have, and text that is none: JSON can have halves of characters."""
    if (count := sum(map(len, texts))) > limits.max_characters:
        raise refused(f"{count} characters of text, expected at most {limits.max_characters}", param=param)
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        raise refused("the text has halves of surrogate pairs, which are no Unicode", param=param) from None


def check_count(images: Sequence[ImageInput], limits: Limits, param: str) -> None:
    """Refuses more images than a request may have."""
    if len(images) > limits.max_images:
        raise refused(f"{len(images)} images, expected at most {limits.max_images}", param=param)


def image_of(address: ImageAddress, param: str) -> ImageInput:
    """The image of a data URL, or of an address of the web.

    Raises:
        ApiError: neither of these, damaged base64, or no such window.
    """
    looks = {name: getattr(address, name) for name in ("window", "slice", "plane", "volume")}
    return image_at(address.url, view_of(looks, param), param)


def image_at(url: str, view: Mapping[str, Any], param: str) -> ImageInput:
    """As `image_of`."""
    if match := _DATA.match(url[:256]):
        return ImageFile(data=decoded(url[match.end() :], param), view=view)
    if url[:8].lower().startswith(("http://", "https://")):
        return RemoteImage(url=url, view=view)
    raise refused(
        f"the image's address {url[:_SHOWN]!r} is neither data:image/...;base64,... nor https://...",
        param=param,
        code="invalid_image_url",
    )


def decoded(text: str, param: str) -> bytes:
    """The bytes of base64, in either alphabet and with or without line ends.

    Raises:
        ApiError: it is none.
    """
    try:
        raw = unquote_to_bytes(text) if "%" in text else text.encode("ascii")
        raw = raw.translate(bytes.maketrans(b"-_", b"+/"), b" \t\r\n")
        return base64.b64decode(raw + b"=" * (-len(raw) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise refused("the image's base64 is damaged", param=param, code="invalid_base64") from None


def view_of(looks: Mapping[str, Any], param: str) -> dict[str, Any]:
    """The keywords of `View.of` that were given.

    Raises:
        ApiError: a window or plane that is none.
    """
    given = {name: value for name, value in looks.items() if value is not None}
    try:
        View.of(**given)
    except ValueError as error:
        raise refused(" ".join(str(error).split()), param=param) from None
    return given


def _text(message: SystemMessage | UserMessage | AssistantMessage) -> str:
    if isinstance(message.content, str):
        return message.content
    return "\n".join(part.text for part in message.content if not isinstance(part, ImagePart))


def _images(message: UserMessage, param: str) -> list[ImageInput]:
    if isinstance(message.content, str):
        return []
    return [
        image_of(part.image_url, f"{param}.{place}.image_url")
        for place, part in enumerate(message.content)
        if isinstance(part, ImagePart)
    ]
