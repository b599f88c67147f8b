"""The repo state as values: what is accepted, what changes, and the bytes that the original would write."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rawr.errors import BadInputError
from rawr.ids import PluginId
from rawr.state import model
from rawr.state.model import Document, StateCorruptError, StateVersionError
from rawr.wire import encode

AT = "2026-01-01T00:00:00.000Z"
A, B = PluginId("a"), PluginId("b")
Change = Callable[..., Document]


def test_nothing_is_enabled_without_a_file() -> None:
    state = model.state_of(model.empty(at=AT), at="later")
    assert encode(state) == b'{"version":1,"plugins":{"enabled":[],"lastUpdatedAt":"' + AT.encode() + b'"}}'


def test_enabling_clears_disabled_and_the_reverse() -> None:
    disabled = model.disable(model.enable(model.empty(at=AT), A, at=AT), A, at=AT)
    assert model.state_of(disabled, at=AT).plugins.disabled == (A,)
    assert model.state_of(disabled, at=AT).plugins.enabled == ()
    enabled = model.enable(disabled, A, at="later")
    assert enabled["plugins"] == {"enabled": ["a"], "lastUpdatedAt": "later"}


def test_unknown_keys_survive_every_change() -> None:
    raw = b'{"note":{"b":1,"a":[1.5,null]},"version":1,"plugins":{"theirs":true,"enabled":["a"],"lastUpdatedAt":"x"}}'
    document = model.decode(raw, path="state.json")
    changed = model.disable(model.enable(document, B, at=AT), A, at=AT)
    assert json.loads(model.encode(changed)) == {
        "version": 1,
        "plugins": {"enabled": ["b"], "disabled": ["a"], "lastUpdatedAt": AT, "theirs": True},
        "note": {"b": 1, "a": [1.5, None]},
    }
    assert list(changed) == ["version", "plugins", "note"]


def test_ids_are_trimmed_unique_and_in_the_order_of_javascript() -> None:
    entries = [" b ", "\ufeffa", "a", "", "  ", "\uffee", "\U0001f680", "B"]
    raw = json.dumps({"version": 1, "plugins": {"enabled": entries}}).encode()
    state = model.state_of(model.decode(raw, path="p"), at=AT)
    assert state.plugins.enabled == ("B", "a", "b", "\U0001f680", "\uffee")


def test_the_bytes_are_those_of_the_original() -> None:
    document = model.disable(model.enable(model.empty(at=AT), PluginId("é\u2028\x7f\b/"), at=AT), B, at=AT)
    assert (
        model.encode(document)
        == (
            '{\n  "version": 1,\n  "plugins": {\n    "enabled": [\n      "é\u2028\x7f\\b/"\n    ],\n'
            '    "disabled": [\n      "b"\n    ],\n    "lastUpdatedAt": "2026-01-01T00:00:00.000Z"\n  }\n}\n'
        ).encode()
    )
    assert model.encode(model.empty(at="x")) == (
        b'{\n  "version": 1,\n  "plugins": {\n    "enabled": [],\n    "lastUpdatedAt": "x"\n  }\n}\n'
    )


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node to compare with")
def test_node_writes_the_same_bytes() -> None:
    ids = [chr(code) for code in (*range(1, 0x2100, 7), 0xFFFD, 0x1F680)]
    document = model.empty(at=AT)
    for text in ids:
        if text.strip(model.WHITE_SPACE):
            document = model.enable(document, PluginId(text), at=AT)
    written = model.encode(document)
    script = (
        "const raw = require('fs').readFileSync(0); const x = JSON.parse(raw);"
        "x.plugins.enabled = [...new Set(x.plugins.enabled.map(s => s.trim()).filter(Boolean))].sort();"
        "process.stdout.write(JSON.stringify(x, null, 2) + '\\n')"
    )
    done = subprocess.run(["node", "-e", script], input=written, capture_output=True, timeout=30)
    assert done.stdout == written


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "JSON"),
        (b"\x00" * 50, "JSON"),
        (b'{"version":1,"plugins":{"enabled":["a"]', "JSON"),
        (b"\xff{}", "JSON"),
        (b"[]", "not an object"),
        (b"null", "not an object"),
        (b'{"plugins":{"enabled":[]}}', "`version`"),
        (b'{"version":"1","plugins":{"enabled":[]}}', "`version`"),
        (b'{"version":true,"plugins":{"enabled":[]}}', "`version`"),
        (b'{"version":1}', "`plugins` is not an object"),
        (b'{"version":1,"plugins":[]}', "`plugins` is not an object"),
        (b'{"version":1,"plugins":{}}', "`plugins.enabled`"),
        (b'{"version":1,"plugins":{"enabled":"a"}}', "`plugins.enabled`"),
        (b'{"version":1,"plugins":{"enabled":["a",1]}}', "`plugins.enabled`"),
        (b'{"version":1,"plugins":{"enabled":[],"disabled":null}}', "`plugins.disabled`"),
        (b'{"version":1,"plugins":{"enabled":[],"lastUpdatedAt":5}}', "`plugins.lastUpdatedAt`"),
    ],
)
def test_what_does_not_fit_is_an_error_and_never_the_default(raw: bytes, reason: str) -> None:
    with pytest.raises(StateCorruptError, match=rf"state\.json \({len(raw)} bytes\) cannot be understood: .*{reason}"):
        model.decode(raw, path="state.json")


@pytest.mark.parametrize("version", [0, 2, -1, 10**20])
def test_another_version_is_refused(version: int) -> None:
    raw = json.dumps({"version": version, "plugins": {"anything": "goes"}}).encode()
    with pytest.raises(StateVersionError, match=f"has version {version}, this rawr knows 1"):
        model.decode(raw, path="state.json")


def test_a_byte_order_mark_and_a_missing_time_are_accepted() -> None:
    document = model.decode(b'\xef\xbb\xbf{"version":1,"plugins":{"enabled":["a"]}}', path="p")
    assert model.state_of(document, at=AT).plugins.last_updated_at == AT


def test_a_plugin_id_is_trimmed_and_has_limits() -> None:
    assert model.plugin_id_of(" @rawr/plugin \n") == "@rawr/plugin"
    assert len(model.plugin_id_of("x" * 214)) == 214
    for bad in ("", " \u2003\ufeff", "x" * 215, "\udcff"):
        with pytest.raises(BadInputError, match="plugin id"):
            model.plugin_id_of(bad)


ids = st.sampled_from([PluginId(text) for text in ("a", "b", "c", "\U0001f680")])


@given(st.lists(st.tuples(st.sampled_from([model.enable, model.disable]), ids)))
def test_the_last_word_on_each_plugin_counts(changes: list[tuple[Change, PluginId]]) -> None:
    document = model.empty(at=AT)
    last: dict[PluginId, Change] = {}
    for change, plugin_id in changes:
        document = change(document, plugin_id, at=AT)
        last[plugin_id] = change
    plugins = model.state_of(model.decode(model.encode(document), path="p"), at=AT).plugins
    assert set(plugins.enabled) == {plugin_id for plugin_id, change in last.items() if change is model.enable}
    assert set(plugins.disabled) == {plugin_id for plugin_id, change in last.items() if change is model.disable}
