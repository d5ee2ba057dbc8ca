"""Faults that can be switched on: at a rate for everybody, or for the next calls of one customer or path."""

import re
from collections import Counter
from collections.abc import Mapping
from itertools import cycle
from typing import TypeVar

from cockpit_source.sandbox.draws import Draws

KINDS = (
    "throttle",  # 429 with Retry-After in seconds
    "throttle_date",  # 429 with Retry-After as a date
    "throttle_bare",  # 429 without Retry-After
    "error_500",  # 500 with the API's error body
    "html_503",  # 503 with the HTML page of a gateway
    "reset",  # the connection is reset before an answer
    "truncated",  # the connection closes in the middle of the body
    "hang",  # no answer for hang_seconds, then the connection is reset
    "wrong_shape",  # 200 with an object, a string or null, in turn
    "sign_in_page",  # 200 with an HTML page
    "redirect",  # 302 to another host name
    "expired_token",  # 401 without a body; the token itself stays good
    "oversized",  # 200 with an empty array blown up by oversized_bytes of white space
)
AIMED_KINDS = (
    *KINDS,
    "forbidden",  # 403 without a body; no rate, because a permission is not missing by chance
)
SIGN_IN = "sign-in"
WRONG_SHAPES = ({"message": "this is not an array"}, "this is not an array", None)
_DEFAULTS: dict[str, float] = {
    "latency_ms": 0,
    "latency_jitter_ms": 0,
    "retry_after_seconds": 1,
    "hang_seconds": 30,
    "oversized_bytes": 32 * 1024 * 1024,
}


K = TypeVar("K")
_Queue = list[tuple[str, int | None]]
"""Kinds in their order, each with how often it is still met; None: always."""


class Faults:
    """The faults of one sandbox. All are off at first.

    The n-th call of a scope meets the same fault in every run with the same seed, in whichever
    order the scopes are called.
    """

    def __init__(self, seed: int = 7, **settings: float) -> None:
        self.seed = seed
        self._rates: dict[str, float] = {}
        self._values = dict(_DEFAULTS)
        self._targets: dict[str, _Queue] = {}
        self._paths: dict[re.Pattern[str], _Queue] = {}
        self._calls: Counter[str] = Counter()
        self._wrong_shapes = cycle(WRONG_SHAPES)
        self.configure(**settings)

    def configure(self, **settings: float) -> None:
        """Set rates by kind (0 to 1, at most 1 together) and values; what is not named stays as it is.

        The values are `latency_ms`, `latency_jitter_ms` (added on top, at most so much),
        `retry_after_seconds`, `hang_seconds` and `oversized_bytes`.
        Raises ValueError for an unknown name or a number out of range; then nothing is changed.
        """
        for name, number in settings.items():
            if name not in KINDS and name not in _DEFAULTS:
                raise ValueError(f"unknown fault {name!r}; valid are {', '.join((*KINDS, *_DEFAULTS))}")
            if isinstance(number, bool) or not isinstance(number, int | float) or not number >= 0:
                raise ValueError(f"{name} is {number!r}; it must be a number, 0 or more")
        rates = self._rates | {kind: rate for kind, rate in settings.items() if kind in KINDS}
        together = round(sum(rates.values()), 9)
        if together > 1:
            raise ValueError(f"the fault rates add up to {together}; 1 is the most")
        self._rates = {kind: rates[kind] for kind in KINDS if rates.get(kind)}
        self._values |= {name: value for name, value in settings.items() if name in _DEFAULTS}

    def for_customer(self, customer_id: str, kind: str, times: int | None = None) -> None:
        """Let the next `times` calls of this customer fail so (None: all); a second call queues up behind."""
        _aim(self._targets, customer_id.lower(), kind, times)

    def for_path(self, fragment: str, kind: str, times: int | None = None) -> None:
        """The same for API calls whose path and query, `/v1/...?...` in any case, contain this fragment.

        A fragment does not end within a word or number: `pageNumber=3` does not meet page 30.
        """
        pattern = re.compile(re.escape(fragment.lower()) + r"(?![0-9a-z])")
        _aim(self._paths, pattern, kind, times)

    def for_sign_in(self, kind: str, times: int | None = None) -> None:
        """The same for requests for a token, which no rate touches."""
        self.for_customer(SIGN_IN, kind, times)

    def clear(self) -> None:
        """Switch all faults off, forget the counted calls and set all values back."""
        self._rates, self._values = {}, dict(_DEFAULTS)
        self._targets, self._paths = {}, {}
        self._calls.clear()
        self._wrong_shapes = cycle(WRONG_SHAPES)

    def as_dict(self) -> Mapping[str, float]:
        """Rates that are not 0, and all values."""
        return {**self._rates, **self._values}

    @property
    def are_on(self) -> bool:
        """Whether any call may be late or fail."""
        late = self._values["latency_ms"] or self._values["latency_jitter_ms"]
        return bool(late or self._rates or self._targets or self._paths)

    def value(self, name: str) -> float:
        """A value such as `hang_seconds`."""
        return self._values[name]

    def latency_seconds(self, key: str) -> float:
        """How long the next call of a scope has to wait."""
        latency, jitter = self._values["latency_ms"], self._values["latency_jitter_ms"]
        if jitter:
            latency += jitter * Draws(self.seed, "latency", key, self._calls[key]).fraction()
        return latency / 1000

    def next_fault(self, customer_id: str, key: str) -> str | None:
        """The fault that the call of a scope meets now, if any; counts the call."""
        target = self._next_target(customer_id) or self._next_path_target(key)
        if target or not (self._rates or self._values["latency_jitter_ms"]):
            return target
        self._calls[key] += 1
        fraction = Draws(self.seed, "fault", key, self._calls[key]).fraction()
        for kind, rate in self._rates.items():
            fraction -= rate
            if fraction < 0:
                return kind
        return None

    def next_sign_in_fault(self) -> str | None:
        """The fault that a request for a token meets now, if any."""
        return self._next_target(SIGN_IN)

    def next_wrong_shape(self) -> object:
        """Something that is not an array: an object, a string, null, and so on."""
        return next(self._wrong_shapes)

    def _next_target(self, customer_id: str) -> str | None:
        return _dequeue(self._targets.get(customer_id, []))

    def _next_path_target(self, key: str) -> str | None:
        for pattern, queue in self._paths.items():
            if queue and pattern.search(key):
                return _dequeue(queue)
        return None


def _aim(queues: dict[K, _Queue], target: K, kind: str, times: int | None) -> None:
    if kind not in AIMED_KINDS:
        raise ValueError(f"unknown fault {kind!r}; valid are {', '.join(AIMED_KINDS)}")
    if times is None or times > 0:
        queues.setdefault(target, []).append((kind, times))


def _dequeue(queue: _Queue) -> str | None:
    if not queue:
        return None
    kind, times = queue[0]
    if times == 1:
        queue.pop(0)
    elif times is not None:
        queue[0] = (kind, times - 1)
    return kind
