"""The batches of version 2 of the protocol: messages with ids in place of a list with places. Pure.

What holds for a batch of version 1 holds here: it is let in as a whole, and of an item's own headers only the label is
looked at.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import msgspec

from rawr.host.responses import JSON, Response
from rawr.host.rpc_batch import BatchItem, BatchTooLargeError, invalid, place_of, said_label
from rawr.wire import JsonValue, encode

STREAM_TYPE: Final = b"application/octet-stream"

_ID_LENGTH_MAX: Final = 64
_TOO_LARGE: Final = "Batch request size exceeds the maximum allowed size"
_LENGTH: Final = struct.Struct(">I")


def batch_items(document: JsonValue, *, most: int) -> list[BatchItem]:
    """The calls in a batch that were not cancelled before it was sent.

    Raises:
        InvalidBatchError: no list of messages, or two requests with one id.
        BatchTooLargeError: more than `most` calls.
    """
    if not isinstance(document, list):
        raise invalid()
    if len(document) > 2 * most:  # each may have been cancelled
        raise BatchTooLargeError(_TOO_LARGE)
    items: dict[str, BatchItem] = {}
    cancelled: set[str] = set()
    for given in document:
        message_id, kind, json = _message(given)
        if kind == "cancel":
            cancelled.add(message_id)
        elif kind == "request" and message_id not in items:
            items[message_id] = _item(message_id, json)
        else:
            raise invalid()
    wanted = [item for key, item in items.items() if key not in cancelled]
    if len(wanted) > most:
        raise BatchTooLargeError(_TOO_LARGE)
    return wanted


def answer_of(item: BatchItem, response: Response) -> dict[str, Any]:
    """The message that answers one call. Every answer of ours to a call of version 2 is JSON."""
    assert response.content_type == JSON
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in response.headers}
    json = {"status": response.status, "headers": headers, "bodyHint": "json", "body": msgspec.Raw(response.body)}
    return {"id": item.key, "kind": "response", "json": json}


def framed(answer: dict[str, Any]) -> bytes:
    """A message of a streamed batch: its length as four bytes, the most significant first, and its JSON."""
    raw = encode(answer)
    return _LENGTH.pack(len(raw)) + raw


def _message(given: JsonValue) -> tuple[str, JsonValue, JsonValue]:
    if not isinstance(given, dict):
        raise invalid()
    message_id = given.get("id")
    if not isinstance(message_id, str) or len(message_id) > _ID_LENGTH_MAX:
        raise invalid()
    return message_id, given.get("kind"), given.get("json")


def _item(message_id: str, json: JsonValue) -> BatchItem:
    if not isinstance(json, dict):
        raise invalid()
    method, headers, url = json.get("method"), json.get("headers"), json.get("url")
    if not isinstance(method, str) or not isinstance(headers, dict) or not isinstance(url, str):
        raise invalid()
    place = place_of(url)
    if place.scheme or place.netloc or not place.path.startswith("/"):
        raise invalid()
    return BatchItem(
        key=message_id,
        method=method,
        path=place.path,
        query=place.query,
        label=said_label(headers),
        body=_body(json),
    )


def _body(json: dict[str, JsonValue]) -> JsonValue | msgspec.UnsetType:
    """What a file or a stream holds is not in the message; they are no input of a batch."""
    match json.get("bodyHint"):
        case "json":
            return json.get("body", msgspec.UNSET)
        case None | "none" | "url-search-params":
            return msgspec.UNSET
        case _:
            raise invalid()
