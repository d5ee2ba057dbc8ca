"""An HTTP adapter that counts what it sends, for contenders on `requests`."""

from __future__ import annotations

import threading
from typing import Any

from requests import Response
from requests.adapters import HTTPAdapter


class CountingAdapter(HTTPAdapter):
    """A pool of connections, safe to share between threads; `requests` counts what was sent, retries included."""

    def __init__(self, connections: int) -> None:
        super().__init__(pool_maxsize=connections)
        self.requests = 0
        self._lock = threading.Lock()

    def send(self, *arguments: Any, **options: Any) -> Response:
        """Count and send."""
        with self._lock:
            self.requests += 1
        return super().send(*arguments, **options)
