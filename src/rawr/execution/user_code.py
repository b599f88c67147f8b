"""Calling what plugins wrote: sync functions in a thread of their own, async ones on the loop. Judges nothing."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar

from rawr.errors import RawrError

DETAIL_MAX: Final = 2000

T = TypeVar("T")


async def called(function: Callable[..., Any], *arguments: Any) -> Any:
    """What the function gives, or raises. A sync one that is no longer waited for goes on in its thread, unheard."""
    given = function(*arguments) if is_async(function) else await _in_thread(function, *arguments)
    return await given if inspect.isawaitable(given) else given


def is_async(function: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


async def _in_thread(call: Callable[..., T], *arguments: Any) -> T:
    """Run in a thread of its own. In a pool, functions that never end would starve the others, and the exit."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()
    context = contextvars.copy_context()

    def deliver(result: T | None, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is None:
            done.set_result(result)  # type: ignore[arg-type]  # None is a T when it was returned
        else:
            done.set_exception(error)

    def work() -> None:
        result, error = None, None
        try:
            result = context.run(call, *arguments)
        except BaseException as raised:  # noqa: BLE001 - it is handed on to the awaiting coroutine, not dropped
            error = RuntimeError("StopIteration") if isinstance(raised, StopIteration) else raised
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(deliver, result, error)

    threading.Thread(target=work, name="user code", daemon=True).start()
    return await done


def message_of(error: BaseException) -> str:
    """What people will read of it: UTF-8 and not endless."""
    text = error.message if isinstance(error, RawrError) else f"{type(error).__name__}: {error}"
    return ascii(text)[1:-1][:DETAIL_MAX] if not _is_utf8(text) else text[:DETAIL_MAX]


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
