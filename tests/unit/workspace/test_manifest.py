"""The contract of plugin metadata, in its published wording."""

from __future__ import annotations

from typing import Any

import pytest

from rawr.workspace.manifest import (
    FORBIDDEN_KEYS,
    KIND_OF_ROOT,
    ManifestError,
    PluginKind,
    PluginMetadata,
    parse_metadata,
)

PATH = "plugins/web/x/package.json"


@pytest.mark.parametrize(("root", "kind"), KIND_OF_ROOT.items())
def test_each_root_holds_one_kind(root: str, kind: PluginKind) -> None:
    parsed = parse_metadata({"kind": kind.value, "capability": " c "}, path=PATH, root=root)
    assert parsed == PluginMetadata(kind=kind, capability="c")


def test_the_five_roots_are_the_published_ones() -> None:
    assert {root: kind.value for root, kind in KIND_OF_ROOT.items()} == {
        "cli": "toolkit",
        "agents": "agent",
        "web": "web",
        "api": "api",
        "workflows": "workflows",
    }


@pytest.mark.parametrize(
    ("section", "root", "why"),
    [
        (None, "web", "required rawr object is missing"),
        ([], "web", "required rawr object is missing"),
        ("web", "web", "required rawr object is missing"),
        ({}, "web", "required rawr.kind is missing"),
        ({"kind": ""}, "web", "required rawr.kind is missing"),
        ({"kind": None}, "web", "required rawr.kind is missing"),
        ({"kind": "magic"}, "web", 'invalid rawr.kind "magic"'),
        ({"kind": 3}, "web", 'invalid rawr.kind "3"'),
        ({"kind": ["web"]}, "web", "invalid rawr.kind \"['web']\""),
        ({"kind": "web", "capability": "x"}, "cli", 'rawr.kind must be "toolkit" for plugins/cli/*'),
        ({"kind": "toolkit", "capability": "x"}, "web", 'rawr.kind must be "web" for plugins/web/*'),
        ({"kind": "web"}, "web", "required rawr.capability is missing"),
        ({"kind": "web", "capability": "  "}, "web", "required rawr.capability is missing"),
        ({"kind": "web", "capability": 7}, "web", "required rawr.capability is missing"),
        (
            {"kind": "web", "capability": "x", "templateRole": "fixture"},
            "web",
            "forbidden rawr.templateRole is present",
        ),
        ({"channel": None}, "web", "forbidden rawr.channel is present"),
        ({"publishTier": 1}, "web", "forbidden rawr.publishTier is present"),
        ({"published": False}, "web", "forbidden rawr.published is present"),
        (
            {"kind": "workflows", "capability": "x", "entry": " "},
            "workflows",
            "rawr.entry must be the path of a file or package in the plugin",
        ),
        (
            {"kind": "workflows", "capability": "x", "entry": 1},
            "workflows",
            "rawr.entry must be the path of a file or package in the plugin",
        ),
    ],
)
def test_a_violation_is_told_in_the_published_words(section: Any, root: str, why: str) -> None:
    with pytest.raises(ManifestError) as raised:
        parse_metadata(section, path=PATH, root=root)
    assert raised.value.message == f"Plugin manifest contract violation at {PATH}: {why}"
    assert raised.value.code == "PLUGIN_MANIFEST_INVALID"
    assert raised.value.details == {"path": PATH}


def test_the_forbidden_keys_are_the_four_legacy_ones() -> None:
    assert FORBIDDEN_KEYS == ("templateRole", "channel", "publishTier", "published")
