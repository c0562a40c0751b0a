"""Everything that goes wrong, in the shape of OpenAI's errors: a status, one clear line, no traces and no paths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

# OpenAI's kinds of errors, by status.
_KINDS = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
_TEXTS = {404: "there is nothing at this address", 405: "this address takes no requests of this method"}


class ApiError(Exception):
    """An error that a client is told of.

    Args:
        code: a word for programs. param: the part of the request that is wrong.
        retry_after: seconds after which it may be tried again.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after: int | None = None,
    ):
        message = message.encode("utf-8", "replace").decode()  # what it repeats may be no Unicode
        super().__init__(message)
        self.status, self.message, self.code, self.param, self.retry_after = status, message, code, param, retry_after

    @property
    def kind(self) -> str:
        return _KINDS.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")

    def body(self) -> dict[str, Any]:
        """What the client reads."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}

    def headers(self) -> dict[str, str]:
        headers = {}
        if self.retry_after is not None:
            headers["Retry-After"] = str(self.retry_after)
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return headers

    def response(self) -> JSONResponse:
        return JSONResponse(self.body(), status_code=self.status, headers=self.headers())


def refused(message: str, *, param: str | None = None, code: str | None = None) -> ApiError:
    """A request that makes no sense as it is."""
    return ApiError(400, message, param=param, code=code)


def late() -> ApiError:
    """A request whose time is over."""
    return ApiError(504, "the request took more time than a request may take", code="deadline")


def foreseen(error: Exception) -> ApiError:
    """What a client is told of an error; of one that nobody foresaw, nothing but that there was one."""
    if isinstance(error, ApiError):
        return error
    return ApiError(500, "the server made a mistake; its log has more under this request's id", code="internal")


def of_validation(errors: Sequence[Any]) -> ApiError:
    """The first thing that is wrong with a request's fields."""
    first = errors[0]
    place = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path"))
    if first["type"] == "json_invalid":
        return refused("the body is not valid JSON", code="invalid_json")
    if first["type"] == "extra_forbidden":
        return refused(f"{place}: not a field that is known here", param=place, code="unknown_parameter")
    if first["type"] == "unsupported":
        return refused(first["msg"], param=first["ctx"]["name"], code="unsupported_parameter")
    message = str(first["msg"]).removeprefix("Value error, ")
    return refused(f"{place}: {message}" if place else message, param=place or None)


def add_error_handlers(app: FastAPI) -> None:
    """Lets every error of an app take this shape."""

    @app.exception_handler(ApiError)
    async def api_error(request: Request, error: ApiError) -> JSONResponse:
        return error.response()

    @app.exception_handler(RequestValidationError)
    async def validation_error(request: Request, error: RequestValidationError) -> JSONResponse:
        return of_validation(error.errors()).response()

    @app.exception_handler(Exception)
    async def error(request: Request, error: Exception) -> JSONResponse:
        return foreseen(error).response()

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        told = ApiError(error.status_code, _TEXTS.get(error.status_code, str(error.detail)))
        response = told.response()
        response.headers.update(error.headers or {})
        return response
