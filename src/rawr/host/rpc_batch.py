"""Several calls in one request of `/rpc`: reading them, and the form of their answers. Pure.

A batch is let in as a whole, by its outer request. Of an item's own headers only the label is looked at, because
a label can only narrow: nothing that an item says makes it another caller than the batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

import msgspec

from rawr.errors import BadInputError, RawrError
from rawr.host.auth import SURFACE_HEADER
from rawr.host.responses import JSON, Response, json_response
from rawr.wire import JsonValue

STATUS: Final = 207

_INVALID: Final = "Invalid batch request, this could be caused by a malformed request body or a missing header"
_TOO_LARGE: Final = "Batch request size exceeds the maximum allowed size"
_UNMATCHED: Final = "No procedure matched"
_STREAM: Final = (
    "Batch responses do not support file/blob, or event-iterator. "
    "Please call this procedure separately outside of the batch request."
)


class BatchMode(StrEnum):
    BUFFERED = "buffered"
    STREAMING = "streaming"


class InvalidBatchError(BadInputError):
    code = "INVALID_BATCH"


class BatchTooLargeError(RawrError):
    code = "BATCH_TOO_LARGE"


class BatchItem(msgspec.Struct, frozen=True, kw_only=True):
    """One call of a batch."""

    key: int | str
    """By which its answer is known: its place in the batch, or the id that version 2 gives it."""
    method: str
    path: str
    query: str
    label: str | None
    body: JsonValue | msgspec.UnsetType


def batch_mode(header: str) -> BatchMode:
    """Streaming, unless the header says buffered."""
    return BatchMode.BUFFERED if header == BatchMode.BUFFERED else BatchMode.STREAMING


def batch_items(document: JsonValue, *, method: str, most: int) -> list[BatchItem]:
    """The calls in a batch. `method` is the outer one, for items that say none.

    Raises:
        InvalidBatchError: no list of objects, each with an absolute `url`.
        BatchTooLargeError: more than `most` calls.
    """
    if not isinstance(document, list):
        raise invalid()
    items = [_item(index, given, method) for index, given in enumerate(document)]
    if len(items) > most:
        raise BatchTooLargeError(_TOO_LARGE)
    return items


def refused(error: RawrError) -> Response:
    """A text, not an error of five keys: no call has been made yet, so there is none to have failed."""
    if isinstance(error, BatchTooLargeError):
        return json_response(_TOO_LARGE, status=413)
    return json_response(_INVALID, status=400)


def unmatched() -> Response:
    return json_response(_UNMATCHED, status=404)


def stream_refused() -> Response:
    return json_response(_STREAM, status=500)


def answer_of(item: BatchItem, response: Response) -> dict[str, Any]:
    """The answer to one call as it stands in the answer to the batch."""
    answer: dict[str, Any] = {"index": item.key, "status": response.status}
    if response.headers:
        answer["headers"] = {name.decode("latin-1"): value.decode("latin-1") for name, value in response.headers}
    is_json = response.content_type == JSON
    answer["body"] = msgspec.Raw(response.body) if is_json else response.body.decode()
    return answer


def buffered(answers: Sequence[Mapping[str, Any]]) -> Response:
    return json_response(answers, status=STATUS)


def _item(index: int, given: JsonValue, outer_method: str) -> BatchItem:
    if not isinstance(given, dict):
        raise invalid()
    method, headers, url = given.get("method", outer_method), given.get("headers", {}), given.get("url")
    if not isinstance(method, str) or not isinstance(headers, dict) or not isinstance(url, str):
        raise invalid()
    place = place_of(url)
    if not place.scheme or not place.netloc:
        raise invalid()
    body = given.get("body", msgspec.UNSET)
    return BatchItem(key=index, method=method, path=place.path, query=place.query, label=said_label(headers), body=body)


def invalid() -> InvalidBatchError:
    return InvalidBatchError(_INVALID)


def place_of(url: str) -> SplitResult:
    """Raises InvalidBatchError."""
    try:
        return urlsplit(url)
    except ValueError as error:
        raise invalid() from error


def said_label(headers: Mapping[str, JsonValue]) -> str | None:
    """What the item says it is; a label that is said twice, or is no text, is the empty one and means nothing."""
    wanted = SURFACE_HEADER.decode()
    said = [value for name, value in headers.items() if name.lower() == wanted]
    if not said:
        return None
    return said[0] if len(said) == 1 and isinstance(said[0], str) else ""
