"""A transport for a connection without a socket."""

from __future__ import annotations

import asyncio
from typing import Any


class Wire(asyncio.Transport):
    """What a connection writes, until it closes."""

    def __init__(self) -> None:
        super().__init__({"sockname": ("127.0.0.1", 1), "peername": ("127.0.0.1", 2)})
        self.written = b""
        self._is_closing = False

    def write(self, data: Any) -> None:
        assert not self._is_closing
        self.written += data

    def close(self) -> None:
        self._is_closing = True

    def is_closing(self) -> bool:
        return self._is_closing

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        """Whatever comes is given at once."""

    def resume_reading(self) -> None:
        """It never stopped."""
