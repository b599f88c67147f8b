"""Which version of oRPC's protocol a call of `/rpc` speaks, and how its errors look there. Pure.

Nothing in an ordinary call says so: version 1 is spoken unless the caller asks for version 2, by `x-orpc-protocol`, by
the header of a batch, or by tags in its input that only version 2 has.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import msgspec

from rawr.errors import BadInputError
from rawr.host.auth import Headers, header_values

HEADER: Final = b"x-orpc-protocol"
BATCH_HEADERS: Final = (b"x-orpc-batch", b"orpc-batch")


class RpcProtocol(IntEnum):
    V1 = 1
    V2 = 2

    @property
    def batch_header(self) -> bytes:
        return BATCH_HEADERS[self - 1]


class AmbiguousProtocolError(BadInputError):
    """The headers ask for two protocols, or for one that does not exist."""

    code = "BAD_REQUEST"


def asked_protocol(headers: Headers) -> RpcProtocol | None:
    """What the headers ask for; None when they leave it open.

    Raises:
        AmbiguousProtocolError
    """
    asked = {_numbered(value) for value in header_values(headers, HEADER)}
    asked |= {protocol for protocol in RpcProtocol if header_values(headers, protocol.batch_header)}
    if len(asked) > 1:
        raise AmbiguousProtocolError("the headers ask for both versions of the protocol: ask for one")
    return asked.pop() if asked else None


def _numbered(value: bytes) -> RpcProtocol:
    for protocol in RpcProtocol:
        if value.strip() == b"%d" % protocol:
            return protocol
    raise AmbiguousProtocolError("x-orpc-protocol is 1 or 2")


class ErrorOfV2(msgspec.Struct, frozen=True, kw_only=True):
    """The five keys of version 2. Its readers refuse any other; the status is only that of the answer."""

    defined: bool = False
    inferable: bool = False
    code: str
    message: str
    data: object | msgspec.UnsetType = msgspec.UNSET
