"""From a view to HTML text, and the assets that pages link to. The only importer of jinja2, and imported late.

Everything that a view holds is shown as text: escaping is on for every template, a name that a template
misspells is an error, and nothing in here marks a string as safe.
"""

from __future__ import annotations

import hashlib
from importlib import resources
from typing import Any, Final, assert_never

import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined

from rawr.console.views import Failed, LoginView, OverviewView, ProblemView, RunView, View
from rawr.console.waterfall import Segment, desk_rows, ms_of, span_ms
from rawr.coordination.model import TERMINAL_STATUSES
from rawr.wire import JsonValue

EVENTS_SHOWN: Final = 500
VALUE_CHARS_MAX: Final = 20_000
CHART_WIDTH: Final = 1000
"""In units of the bars' own coordinates; on the screen they are as wide as there is room."""
BAR_WIDTH_MIN: Final = 6

_CONTENT_TYPES: Final = {
    "console.css": b"text/css; charset=utf-8",
    "login.js": b"text/javascript; charset=utf-8",
    "icon.svg": b"image/svg+xml",
}


class Asset(msgspec.Struct, frozen=True, kw_only=True):
    content_type: bytes
    body: bytes
    version: str
    """Changes with the content."""


class Pages:
    """The templates and assets of the package, read once. Used from several threads."""

    def __init__(self) -> None:
        self._assets = {name: _asset(name, content_type) for name, content_type in _CONTENT_TYPES.items()}
        self._environment = Environment(
            autoescape=True,
            undefined=StrictUndefined,
            loader=PackageLoader("rawr.console"),
            auto_reload=False,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters.update(duration=duration, moment=moment, json_text=json_text)
        self._environment.globals.update(asset=self._asset_url)
        self._environment.tests.update(failed=lambda part: isinstance(part, Failed))

    def asset(self, name: str) -> Asset | None:
        return self._assets.get(name)

    def html(self, view: View) -> str:
        match view:
            case LoginView():
                return self._rendered("login.html", view=view)
            case OverviewView():
                return self._rendered("overview.html", view=view, durations=_durations(view))
            case RunView():
                return self._rendered("run.html", view=view, **_run_values(view))
            case ProblemView():
                return self._rendered("problem.html", view=view)
            case _:
                assert_never(view)

    def _rendered(self, template: str, **values: Any) -> str:
        return self._environment.get_template(template).render(values)

    def _asset_url(self, name: str) -> str:
        return f"/console/assets/{name}?v={self._assets[name].version}"


class Bar(msgspec.Struct, frozen=True, kw_only=True):
    """A segment in the coordinates of the chart."""

    x: int
    width: int
    status: str


def bar(segment: Segment, total_ms: int) -> Bar:
    """Where a segment is drawn; never too thin to be seen, never outside."""
    scale = CHART_WIDTH / max(1, total_ms)
    width = min(CHART_WIDTH, max(BAR_WIDTH_MIN, round((segment.end_ms - segment.start_ms) * scale)))
    x = min(round(segment.start_ms * scale), CHART_WIDTH - width)
    return Bar(x=x, width=width, status=segment.status.value)


def duration(ms: int) -> str:
    """A length of time for people: `340 ms`, `2.41 s`, `3 min 07 s`, `2 h 05 min`."""
    if ms < 1000:
        return f"{ms} ms"
    if ms < 60_000:
        return f"{ms / 1000:.2f} s"
    minutes, seconds = divmod(ms // 1000, 60)
    if minutes < 60:
        return f"{minutes} min {seconds:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def moment(iso: str) -> str:
    """`2026-11-22T11:37:43.454Z` as `2026-11-22 11:37:43 UTC`."""
    return f"{iso[:10]} {iso[11:19]} UTC"


def json_text(value: JsonValue) -> str:
    """A JSON value over several lines, cut when it is very long."""
    text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    if len(text) <= VALUE_CHARS_MAX:
        return text
    return f"{text[:VALUE_CHARS_MAX]}\n... ({len(text)} characters; the first {VALUE_CHARS_MAX} are shown)"


def _durations(view: OverviewView) -> dict[str, int]:
    runs = () if isinstance(view.runs, Failed) else view.runs.value
    return {run.run_id: span_ms(run, view.now_ms) for run in runs}


def _run_values(view: RunView) -> dict[str, Any]:
    total_ms = span_ms(view.run, view.now_ms)
    rows = desk_rows(view.run, view.workflow, view.timeline, view.now_ms)
    origin_ms = ms_of(view.run.started_at)
    # A run ends before its last event has its time when two clocks wrote them: the chart holds all of it.
    chart_ms = max([total_ms, *(segment.end_ms for row in rows for segment in row.segments)])
    shown = view.timeline[:EVENTS_SHOWN]
    return {
        "total_ms": total_ms,
        "chart_width": CHART_WIDTH,
        "ended": view.run.status in TERMINAL_STATUSES,
        "rows": [(row, [bar(segment, chart_ms) for segment in row.segments]) for row in rows],
        "events": [(event, max(0, ms_of(event.ts) - origin_ms)) for event in shown],
        "events_left": len(view.timeline) - len(shown),
        "UNSET": msgspec.UNSET,
    }


def _asset(name: str, content_type: bytes) -> Asset:
    body = resources.files("rawr.console").joinpath("assets", name).read_bytes()
    return Asset(content_type=content_type, body=body, version=hashlib.sha256(body).hexdigest()[:8])
