"""The log of the process as JSON lines, each with the ids of the request on whose behalf it was written."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rawr.host.request import CURRENT_REQUEST
from rawr.wire import encode, iso_from_ms


@contextmanager
def logging_to(write: Callable[[bytes], None]) -> Iterator[None]:
    """Give every log record of this process to `write`, for the `with` block."""
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    root.handlers[:] = [_JsonLines(write)]
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.handlers[:], level = before
        root.setLevel(level)


class _JsonLines(logging.Handler):
    def __init__(self, write: Callable[[bytes], None]) -> None:
        super().__init__()
        self._write = write
        self._traces = logging.Formatter()

    def emit(self, record: logging.LogRecord) -> None:
        line: dict[str, Any] = {
            "ts": iso_from_ms(int(record.created * 1000)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _printable(record.getMessage()),
        }
        if (request := CURRENT_REQUEST.get()) is not None:
            line |= {"requestId": request.request_id, "correlationId": request.correlation_id}
        if record.exc_info:
            line["trace"] = _printable(self._traces.formatException(record.exc_info))
        self._write(encode(line))


def _printable(text: str) -> str:
    """The text without halves of characters, as names of files may have."""
    return text.encode("utf-8", "backslashreplace").decode()
