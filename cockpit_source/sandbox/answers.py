"""Answers that several parts of the sandbox share."""

import json
from typing import Any
from uuid import uuid4

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

_TYPES = {400: "BadRequest", 404: "NotFound", 405: "MethodNotAllowed", 500: "InternalServerError"}


class Refused(Exception):
    """Ends the handling of a request with this answer."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status_code)
        self.response = response


def header(scope: Scope, name: bytes) -> str | None:
    """The value of a request header, its name in lower case; None when it was not sent."""
    for known, value in scope["headers"]:
        if known == name:
            return str(value, "latin-1")
    return None


def json_answer(content: Any, status: int = 200) -> Response:
    """An answer with a JSON body."""
    return Response(json.dumps(content, ensure_ascii=False), status, media_type="application/json")


def html_answer(text: str, status: int = 200) -> Response:
    """An answer with a small HTML page."""
    page = f"<!DOCTYPE html><html><head><title>{text}</title></head><body><h1>{text}</h1></body></html>"
    return Response(page, status, media_type="text/html")


def problem(request: Request, status: int, description: str, /, **properties: str) -> Response:
    """The API's error body; `properties` names what is wrong with which parameter.

    It repeats the caller's correlation id. The texts, and the kinds in `type`, are the sandbox's own.
    """
    errors = [{"propertyName": name, "description": [text]} for name, text in properties.items()]
    body = {
        "statusCode": status,
        "type": _TYPES.get(status, "Error"),
        "description": description,
        "correlationId": header(request.scope, b"x-correlation-id") or str(uuid4()),
        "errors": errors or None,
    }
    return json_answer(body, status)
