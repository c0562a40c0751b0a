"""The ASGI app: the addresses of OpenAI's API, and those by which a server is watched."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.types import ASGIApp

from healthgpt import __version__
from healthgpt.serving.api.chat import answer_chat
from healthgpt.serving.api.drawings import draw
from healthgpt.serving.api.errors import ApiError, add_error_handlers
from healthgpt.serving.api.forms import edit_of
from healthgpt.serving.api.gate import Gate
from healthgpt.serving.api.logs import Trace
from healthgpt.serving.api.protocol import (
    ChatCompletion,
    ChatRequest,
    Drawings,
    DrawRequest,
    EditRequest,
    ErrorReply,
    ModelCard,
    ModelList,
    Status,
)
from healthgpt.serving.api.reference import reference_page
from healthgpt.serving.api.service import Service

_DESCRIPTION = (
    "Questions about medical images, answered; medical images, drawn. Chat answers, images draw; one model does both. "
    "Research software: not a medical device, not for diagnosis or treatment."
)
_FORM, _REF = "multipart/form-data", "#/components/schemas/{model}"
_EVENT = {
    "type": "object",
    "properties": {"data": {"type": "string", "description": "a chat.completion.chunk, an error, or [DONE]"}},
}
_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorReply, "description": "a request that makes no sense"},
    401: {"model": ErrorReply, "description": "no API key of this server"},
    404: {"model": ErrorReply, "description": "no such model"},
    408: {"model": ErrorReply, "description": "the body came too slowly"},
    413: {"model": ErrorReply, "description": "the body is too large"},
    415: {"model": ErrorReply, "description": "a body of another type"},
    429: {"model": ErrorReply, "description": "too many requests at once; see Retry-After"},
    503: {"model": ErrorReply, "description": "the server is loading or stopping"},
    504: {"model": ErrorReply, "description": "the request took too long"},
}


def _trace(request: Request) -> Trace:
    return request.state.trace


OfRequest = Annotated[Trace, Depends(_trace)]


def make_server(service: Service) -> ASGIApp:
    """The app of a service, which whoever runs the app starts and closes."""
    app = FastAPI(
        title="HealthGPT",
        version=__version__,
        description=_DESCRIPTION,
        docs_url=None,  # Swagger's page would load scripts from elsewhere
        redoc_url=None,
    )
    add_error_handlers(app)
    _add_openai(app, service)
    _add_watching(app, service)
    schemas = app.openapi()["components"]["schemas"]
    schemas |= EditRequest.model_json_schema(ref_template=_REF)["$defs"]
    routes = [route.path for route in app.routes if hasattr(route, "path")]
    return Gate(app, service, routes)


def _add_openai(app: FastAPI, service: Service) -> None:
    @app.post(
        "/v1/chat/completions",
        responses=_REFUSALS | {200: {"content": {"text/event-stream": {"schema": _EVENT}}}},
        response_model=ChatCompletion,
    )
    async def chat_completions(asked: ChatRequest, trace: OfRequest) -> Any:
        """Answers a question, with images as data URLs, whole or (`stream`) as events."""
        return await answer_chat(service, trace, asked)

    @app.post("/v1/images/generations", responses=_REFUSALS, response_model=Drawings)
    async def images_generations(asked: DrawRequest, trace: OfRequest) -> Any:
        """Draws an image from text, such as a report."""
        return await draw(service, trace, asked, ())

    @app.post(
        "/v1/images/edits", responses=_REFUSALS, response_model=Drawings, openapi_extra={"requestBody": _edit_body()}
    )
    async def images_edits(request: Request, trace: OfRequest) -> Any:
        """Draws an image from another one: a CT as MRI, a sharper one, a reconstruction."""
        asked, images = await edit_of(request, service.limits)
        return await draw(service, trace, asked, images)

    @app.get("/v1/models", responses=_pick(401, 503))
    async def models() -> ModelList:
        """The models that are here; each answers and draws as far as it can."""
        return ModelList(data=[ModelCard(id=name, created=service.created) for name in service.residents.names])

    @app.get("/v1/models/{name}", responses=_pick(401, 404, 503))
    async def model(name: str) -> ModelCard:
        """One of the models."""
        return ModelCard(id=service.model(name)[0], created=service.created)


def _add_watching(app: FastAPI, service: Service) -> None:
    unfit: dict[int | str, dict[str, Any]] = {503: {"model": Status, "description": "it cannot, now"}}

    @app.get("/health", responses=unfit, response_model=Status)
    async def health() -> Any:
        """Whether the server runs; where it says no, it has to be started again."""
        return _status("ok" if service.healthy else "failed", service.healthy)

    @app.get("/ready", responses=unfit, response_model=Status)
    async def ready() -> Any:
        """Whether requests are taken: the models are loaded and the server is not stopping."""
        word = "ready" if service.ready else "stopping" if service.draining else "loading"
        return _status(word, service.ready)

    @app.get("/metrics", response_class=Response, responses=_pick(401))
    async def metrics() -> Response:
        """Figures for Prometheus."""
        return Response(service.metrics.page(), media_type=service.metrics.content_type)

    @app.get("/docs", response_class=HTMLResponse, include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(reference_page(app.openapi()))

    @app.get("/", include_in_schema=False)
    async def root() -> JSONResponse:
        raise ApiError(404, "the API is at /v1, its reference at /docs")


def _status(word: str, good: bool) -> JSONResponse:
    return JSONResponse({"status": word}, status_code=200 if good else 503)


def _pick(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: _REFUSALS[status] for status in statuses}


def _edit_body() -> dict[str, Any]:
    """The schema of a body that the app reads by itself, in both of its forms."""
    edit = EditRequest.model_json_schema(ref_template=_REF)
    edit.pop("$defs")
    fields = {name: field for name, field in edit["properties"].items() if name not in ("image", "images")}
    file = {"type": "string", "contentMediaType": "application/octet-stream"}
    form = {
        "type": "object",
        "properties": {"image": file, "image[]": {"type": "array", "items": file}, **fields},
        "required": ["prompt"],
        "additionalProperties": False,
    }
    return {"required": True, "content": {_FORM: {"schema": form}, "application/json": {"schema": edit}}}
