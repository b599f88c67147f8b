"""What a plugin author writes with. `rawr.sdk` re-exports it; plugins import only that."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, TypeVar

import msgspec

from rawr.coordination.model import Workflow
from rawr.errors import BadInputError, RawrError
from rawr.ids import WorkflowId
from rawr.wire import JsonValue

HANDLER_MARK: Final = "__rawr_desk_handler__"
FINISHED_MARK: Final = "__rawr_on_finished__"

Handler = TypeVar("Handler", bound=Callable[..., Any])


class Marked(Protocol):
    """A callable that `desk_handler` marked."""

    __rawr_desk_handler__: str

    def __call__(self, received: Any, ctx: Any, /) -> Any: ...


class FinishedMark(msgspec.Struct, frozen=True, kw_only=True):
    """What `on_finished` leaves on a function."""

    name: str
    workflow_id: WorkflowId | None


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


def on_finished(name: str, *, workflow_id: str | None = None) -> Callable[[Handler], Handler]:
    """Mark `hook(run, fx)` as what hears of ended runs: of those of one workflow, or of all in this HQ.

    Sync hooks run in a thread. A hook is told at least once, so it may be told again; it has five seconds; and
    how it ends changes nothing about the run. What it does to the world it does by `fx.once(key, effect)`.
    """
    if not name.strip():
        raise BadInputError("a finished hook needs a name, such as @on_finished('repo.notify')")

    def mark(hook: Handler) -> Handler:
        known = None if workflow_id is None else WorkflowId(workflow_id)
        setattr(hook, FINISHED_MARK, FinishedMark(name=name, workflow_id=known))
        return hook

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
