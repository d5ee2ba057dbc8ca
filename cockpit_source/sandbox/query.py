"""Reading the parameters of a call."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from types import MappingProxyType
from urllib.parse import parse_qsl
from uuid import UUID

from starlette.requests import Request

from cockpit_source.sandbox.answers import Refused, problem

NOT_UUID = "The value is not a valid UUID."
REQUIRED = "The value is required."
_NUMBER = re.compile(r"-?[0-9]{1,9}")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def is_uuid(text: str) -> bool:
    """Whether the text is a UUID in its usual form, in any case."""
    return _UUID.fullmatch(text) is not None


@lru_cache(maxsize=1024)
def parse_query(query: bytes) -> Mapping[str, str]:
    """The parameters of a query string, names in lower case; of a repeated one the last."""
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    return MappingProxyType({name.lower(): value for name, value in pairs})


class Query:
    """The parameters of one request. What is wrong is collected, and refused all at once by `check`.

    Names match in any case. What was not sent, or is empty, counts as left out.
    """

    def __init__(self, request: Request) -> None:
        self._request = request
        self._values = parse_query(request.scope["query_string"])
        self._wrong: dict[str, str] = {}

    def check(self) -> None:
        """Refuses the request with 400 when anything read so far was wrong."""
        if self._wrong:
            raise Refused(problem(self._request, 400, "The request is not valid.", **self._wrong))

    def refuse(self, name: str, text: str) -> None:
        """Note what is wrong with a parameter."""
        self._wrong[name] = text

    def text(self, name: str, longest: int | None = None) -> str:
        """A text, at most so many characters long; empty when left out."""
        value = self._values.get(name.lower(), "")
        if longest is not None and len(value) > longest:
            self.refuse(name, f"The value is longer than {longest} characters.")
        return value

    def path_uuid(self, name: str, key: str) -> str:
        """An id in the path, in lower case; `name` is how the API calls it."""
        value: str = self._request.path_params[key]
        if not is_uuid(value):
            self.refuse(name, NOT_UUID)
        return value

    def uuid(self, name: str, required: bool = False) -> str | None:
        """An id in lower case; None when left out."""
        value = self.text(name).lower()
        if not value:
            if required:
                self.refuse(name, REQUIRED)
            return None
        if not is_uuid(value):
            self.refuse(name, NOT_UUID)
        return str(UUID(value)) if is_uuid(value) else None

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        """A whole number from `low` to `high`."""
        value = self._values.get(name.lower())
        if value is None:
            return default
        if not _NUMBER.fullmatch(value) or not low <= int(value) <= high:
            self.refuse(name, f"The value is not a whole number from {low} to {high}.")
            return default
        return int(value)

    def flag(self, name: str, default: bool) -> bool:
        """true or false, in any case."""
        value = self._values.get(name.lower())
        if value is None:
            return default
        if value.lower() not in ("true", "false"):
            self.refuse(name, "The value is not true or false.")
        return value.lower() == "true"

    def choice(self, name: str, choices: Sequence[str], default: str = "") -> str:
        """One of the choices, as printed."""
        value = self._values.get(name.lower())
        if value is None:
            return default
        if value not in choices:
            self.refuse(name, f"The value is not one of {', '.join(choices)}.")
        return value

    def moment(self, name: str, default: datetime) -> datetime:
        """A date and time; UTC where no zone is named."""
        value = self._values.get(name.lower())
        if value is None:
            return default
        try:
            moment = datetime.fromisoformat(value.replace(" ", "+"))  # a plus sign that was not encoded
        except ValueError:
            self.refuse(name, "The value is not a valid date and time.")
            return default
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
