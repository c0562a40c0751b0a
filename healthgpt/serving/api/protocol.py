"""The requests and replies of OpenAI's API, as far as this model can do what they ask for.

What cannot be done is refused by name, unless a client only says that it does not want it; nothing is left out unsaid.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

MOST_CHOICES, MOST_PICTURES = 16, 10
_MOST_MESSAGES, _MOST_PARTS, _MOST_STOPS = 256, 64, 4
# Fields of OpenAI's that tell a server who asks or how to bill, which changes no answer.
_OF_NO_EFFECT = frozenset({
    "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
    "parallel_tool_calls", "reasoning_effort", "verbosity",
})  # fmt: skip
# Fields that ask for something else than this model does, and what they may say all the same.
_WITHOUT_CHAT: Mapping[str, tuple[Any, ...]] = {
    "audio": (), "frequency_penalty": (0,), "function_call": ("none", "auto"), "functions": ([],), "logit_bias": ({},),
    "logprobs": (False,), "modalities": (["text"],), "prediction": (), "presence_penalty": (0,),
    "response_format": ({"type": "text"},), "tool_choice": ("none", "auto"), "tools": ([],), "top_logprobs": (0,),
    "web_search_options": (),
}  # fmt: skip
_WITHOUT_PICTURES: Mapping[str, tuple[Any, ...]] = {
    "background": ("auto", "opaque"), "complexity": (), "frame_count": (), "frame_duration_ms": (),
    "input_fidelity": (), "mask": (), "markup": (), "moderation": ("auto", "low"), "output_compression": (100, "100"),
    "partial_images": (0, "0"), "quality": ("auto", "standard"), "stream": (False, "false"), "style": (), "svg": (),
}  # fmt: skip


class Strict(BaseModel):
    """No unknown fields, and no numbers written as text."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


def _only_what_is_done(values: Any, without: Mapping[str, tuple[Any, ...]]) -> Any:
    """Takes fields without an effect away.

    Raises:
        PydanticCustomError: one would have an effect.
    """
    if not isinstance(values, dict):
        return values
    for name, harmless in without.items():
        if values.get(name) is not None and not any(values[name] == value for value in harmless):
            raise PydanticCustomError("unsupported", "{name} is not supported here", {"name": name})
    return {name: value for name, value in values.items() if name not in _OF_NO_EFFECT and name not in without}


# Requests


class ImageAddress(Strict):
    """Where an image is, and how it is looked at: `window`, `slice`, `plane` and `volume` are for medical images."""

    url: str = Field(description="a data URL with base64: PNG, JPEG, WebP, TIFF, BMP, DICOM, NIfTI, MetaImage, NRRD")
    detail: Literal["auto", "low", "high", "original"] | None = Field(None, description="without an effect")
    window: str | None = Field(None, max_length=64)
    slice: str | Annotated[int, Field(ge=0)] | None = None
    plane: Literal["axial", "coronal", "sagittal"] | None = None
    volume: Annotated[int, Field(ge=0)] | None = None


class TextPart(Strict):
    type: Literal["text"]
    text: str


class ImagePart(Strict):
    type: Literal["image_url"]
    image_url: ImageAddress


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class SystemMessage(Strict):
    role: Literal["system", "developer"]
    content: str | Annotated[list[TextPart], Field(min_length=1, max_length=_MOST_PARTS)]
    name: str | None = None


class UserMessage(Strict):
    role: Literal["user"]
    content: str | Annotated[list[Part], Field(min_length=1, max_length=_MOST_PARTS)]
    name: str | None = None


class AssistantMessage(Strict):
    """An earlier answer, as it came or shortened."""

    model_config = ConfigDict(extra="ignore", json_schema_extra={"additionalProperties": True})

    role: Literal["assistant"]
    content: str | Annotated[list[TextPart], Field(min_length=1, max_length=_MOST_PARTS)]
    name: str | None = None


Message = Annotated[SystemMessage | UserMessage | AssistantMessage, Field(discriminator="role")]


class Choosing(Strict):
    """How tokens are chosen: the likeliest each, unless `temperature` is above 0, or `top_p` below 1 without it."""

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=0, le=2**62)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=2)] | None = None
    num_beams: Annotated[int, Field(ge=1, le=8)] | None = None


class StreamOptions(Strict):
    include_usage: bool | None = None
    include_obfuscation: bool | None = Field(None, description="without an effect")


class ChatRequest(Choosing):
    """A question to the model, with images and the conversation so far."""

    model: str | None = Field(None, max_length=256, description="one of /v1/models; the first without it")
    messages: Annotated[list[Message], Field(min_length=1, max_length=_MOST_MESSAGES)]
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=2**31)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=2**31)] | None = None
    stop: (
        Annotated[str, Field(min_length=1, max_length=256)]
        | Annotated[
            list[Annotated[str, Field(min_length=1, max_length=256)]], Field(min_length=1, max_length=_MOST_STOPS)
        ]
        | None
    ) = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @model_validator(mode="before")
    @classmethod
    def _without(cls, values: Any) -> Any:
        return _only_what_is_done(values, _WITHOUT_CHAT)

    @model_validator(mode="after")
    def _together(self) -> Self:
        if self.stream and (self.num_beams or 1) > 1:
            raise ValueError("num_beams: a stream is without beams")
        return self


class DrawRequest(Choosing):
    """An instruction to draw an image from text alone."""

    model: str | None = Field(None, max_length=256, description="one of /v1/models; the first without it")
    prompt: Annotated[str, Field(min_length=1)]
    n: Annotated[int, Field(ge=1, le=MOST_PICTURES)] | None = None
    size: str | None = Field(None, max_length=32, description="auto, or the size that the model draws")
    response_format: Literal["b64_json"] | None = None
    output_format: Literal["png"] | None = None

    @model_validator(mode="before")
    @classmethod
    def _without(cls, values: Any) -> Any:
        return _only_what_is_done(values, _WITHOUT_PICTURES)


class ImageReference(Strict):
    image_url: str | ImageAddress


class EditRequest(DrawRequest):
    """An instruction to draw an image from another one, in JSON."""

    image: str | Annotated[list[str], Field(min_length=1, max_length=_MOST_PARTS)] | None = Field(
        None, description="data URLs, or base64"
    )
    images: Annotated[list[ImageReference], Field(min_length=1, max_length=_MOST_PARTS)] | None = None
    window: str | None = Field(None, max_length=64, description="as in `image_url`, as the three below")
    slice: str | Annotated[int, Field(ge=0)] | None = None
    plane: Literal["axial", "coronal", "sagittal"] | None = None
    volume: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.image is None) == (self.images is None):
            raise ValueError("image: expected in `image` or in `images`")
        return self


# Replies


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatAnswer(BaseModel):
    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class Choice(BaseModel):
    index: int
    message: ChatAnswer
    logprobs: None = None
    finish_reason: Literal["stop", "length"]


class ChatCompletion(BaseModel):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage


class Delta(BaseModel):
    role: Literal["assistant"] | None = None
    content: str | None = None


class ChunkChoice(BaseModel):
    index: int
    delta: Delta
    logprobs: None = None
    finish_reason: Literal["stop", "length"] | None = None


class ChatChunk(BaseModel):
    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | None = None


class DrawnImage(BaseModel):
    b64_json: str


class InputTokens(BaseModel):
    image_tokens: int
    text_tokens: int


class DrawingUsage(BaseModel):
    input_tokens: int
    input_tokens_details: InputTokens
    output_tokens: int
    total_tokens: int


class Drawings(BaseModel):
    created: int
    data: list[DrawnImage]
    size: str
    output_format: Literal["png"] = "png"
    usage: DrawingUsage


class ModelCard(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["healthgpt"] = "healthgpt"


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelCard]


class ErrorDetail(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorReply(BaseModel):
    error: ErrorDetail


class Status(BaseModel):
    status: str
