"""The body of `/v1/images/edits`, as JSON or as the form that OpenAI's clients send; nothing of it touches a disk."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Any

from fastapi.exceptions import RequestValidationError
from fastapi.requests import Request
from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from healthgpt.serving.api.conversation import (
    ImageInput,
    check_count,
    check_text,
    decoded,
    image_at,
    image_of,
    view_of,
)
from healthgpt.serving.api.errors import ApiError, refused
from healthgpt.serving.api.image_readers import ImageFile
from healthgpt.serving.api.limits import Limits
from healthgpt.serving.api.protocol import DrawRequest, EditRequest, ImageAddress

_MOST_FIELDS = 32
_FORM, _JSON = "multipart/form-data", "application/json"
_FILES = frozenset({"image", "image[]"})
_LOOKS = ("window", "slice", "plane", "volume")


async def edit_of(request: Request, limits: Limits) -> tuple[DrawRequest, list[ImageInput]]:
    """What is to be drawn, and from which images.

    Raises:
        ApiError, RequestValidationError: the body makes no sense.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == _FORM:
        asked, images = await _of_form(request, limits)
    elif kind == _JSON:
        asked, images = _of_json(await request.body())
    else:
        raise ApiError(415, f"the body is {kind[:64] or 'of no type'!r}, expected {_FORM} or {_JSON}")
    check_count(images, limits, "image")
    return asked, images


def check_prompt(asked: DrawRequest, limits: Limits) -> str:
    """The instruction, which has to say something.

    Raises:
        ApiError: it is empty, or too long.
    """
    check_text([asked.prompt], limits, "prompt")
    if not asked.prompt.strip():
        raise refused("prompt: is empty", param="prompt")
    return asked.prompt


def _of_json(body: bytes) -> tuple[EditRequest, list[ImageInput]]:
    try:
        asked = EditRequest.model_validate_json(body)
    except ValidationError as error:
        raise RequestValidationError(error.errors(include_url=False, include_input=False)) from None
    view = view_of({name: getattr(asked, name) for name in _LOOKS}, "window")
    if asked.images is not None:
        addresses = [one.image_url for one in asked.images]
        return asked, [
            image_of(one, f"images.{i}.image_url")
            if isinstance(one, ImageAddress)
            else image_at(one, view, f"images.{i}.image_url")
            for i, one in enumerate(addresses)
        ]
    texts = [asked.image] if isinstance(asked.image, str) else asked.image or []
    return asked, [_image(text, view) for text in texts]


def _image(text: str, view: Mapping[str, Any]) -> ImageInput:
    """An address, or the base64 of an image itself."""
    if ":" in text[:16]:
        return image_at(text, view, "image")
    return ImageFile(data=decoded(text, "image"), view=view)


class _InMemory(MultiPartParser):
    """Keeps files in memory: the body is there already, and bounded."""

    spool_max_size = 0  # SpooledTemporaryFile's word for never


async def _of_form(request: Request, limits: Limits) -> tuple[DrawRequest, list[ImageInput]]:
    async def stream() -> AsyncGenerator[bytes, None]:
        yield await request.body()

    parser = _InMemory(
        request.headers,
        stream(),
        max_files=limits.max_images,
        max_fields=_MOST_FIELDS,
        max_part_size=limits.body_bytes,
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise refused(f"the form cannot be read: {error.message}") from None
    try:
        return _of_fields(form, [(name, file) for name, file in form.multi_items() if isinstance(file, UploadFile)])
    finally:
        await form.close()


def _of_fields(form: FormData, files: list[tuple[str, UploadFile]]) -> tuple[DrawRequest, list[ImageInput]]:
    fields: dict[str, str] = {}
    for name, value in form.multi_items():
        if isinstance(value, str):
            if name in fields:
                raise refused(f"{name}: is there twice", param=name)
            fields[name] = value
    for name, _ in files:
        if name not in _FILES:
            raise refused(f"{name}: is not supported here", param=name)
    if not files:
        raise refused("image: no file is there under that name", param="image")
    looks = {name: fields.pop(name, None) for name in _LOOKS}
    view = view_of(looks | ({"volume": _number(looks["volume"])} if looks["volume"] else {}), "window")
    try:
        # Of a form everything is text.
        asked = DrawRequest.model_validate_strings(fields, strict=False)
    except ValidationError as error:
        raise RequestValidationError(error.errors(include_url=False, include_input=False)) from None
    return asked, [ImageFile(data=file.file.read(), view=view) for _, file in files]


def _number(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise refused("volume: expected a whole number", param="volume")
    return int(text)
