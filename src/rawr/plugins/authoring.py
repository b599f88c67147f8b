"""What a plugin author writes with. `rawr.sdk` re-exports it; plugins import only that."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, TypeVar

import msgspec

from rawr.coordination.model import Workflow
from rawr.errors import BadInputError, RawrError
from rawr.wire import JsonValue

HANDLER_MARK: Final = "__rawr_desk_handler__"

Handler = TypeVar("Handler", bound=Callable[..., Any])


class Marked(Protocol):
    """A callable that `desk_handler` marked."""

    __rawr_desk_handler__: str

    def __call__(self, received: Any, ctx: Any, /) -> Any: ...


class DeskFailed(RawrError):  # noqa: N818 - reads as what the author says: raise DeskFailed("...")
    """Raised by a handler that cannot do its work. The message is what people will read; say what to do."""

    code = "DESK_FAILED"


class WorkflowShapeError(BadInputError):
    code = "WORKFLOW_SHAPE_INVALID"


def desk_handler(name: str) -> Callable[[Handler], Handler]:
    """Mark `handler(received, ctx)` as what desks with `"handler": name` run. Sync ones run in a thread.

    The function is only marked; the host finds it in the plugin's module, so nothing is shared between
    instances. `received` and the result are JSON values and are checked against the desk's schemas.
    """
    if not name.strip():
        raise BadInputError("a desk handler needs a name, such as @desk_handler('repo.activity')")

    def mark(handler: Handler) -> Handler:
        setattr(handler, HANDLER_MARK, name)
        return handler

    return mark


def workflow_from(document: Mapping[str, JsonValue]) -> Workflow:
    """The workflow in a document of the published JSON form.

    Raises:
        WorkflowShapeError: naming the first place that does not fit.
    """
    try:
        return msgspec.convert(document, Workflow)
    except msgspec.ValidationError as error:
        raise WorkflowShapeError(f"workflow {document.get('workflowId', '?')}: {error}") from error
