"""Commands that need no server: init, doctor, state, plugins web, token."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.cli.conftest import Hq


def add_web_plugin(hq: Hq, name: str) -> None:
    folder = hq.root / "plugins/web" / name
    (folder / "dist").mkdir(parents=True)
    (folder / "package.json").write_text(
        json.dumps({"name": f"@x/{name}", "rawr": {"kind": "web", "capability": name}})
    )
    (folder / "dist/web.js").write_text("export function mount() {}\n")


def test_web_plugins_are_listed_enabled_and_disabled(hq: Hq) -> None:
    add_web_plugin(hq, "pulse")
    listed = hq.json("plugins", "web", "list").data
    assert set(listed) == {"workspaceRoot", "plugins", "excludedCount"}
    assert listed["workspaceRoot"] == str(hq.root)
    assert listed["excludedCount"] == 2
    assert [(plugin["id"], plugin["enabled"]) for plugin in listed["plugins"]] == [("@x/pulse", False)]

    planned = hq.json("plugins", "web", "enable", "pulse", "--dry-run").data
    assert planned["planned"]["action"] == "enable"
    assert hq.json("state", "show").data["state"]["plugins"]["enabled"] == []

    assert hq.json("plugins", "web", "enable", "pulse").data["pluginId"] == "@x/pulse"
    assert hq.json("state", "show").data["state"]["plugins"]["enabled"] == ["@x/pulse"]
    assert hq.json("plugins", "web", "status").data["plugins"][0]["enabled"] is True
    assert hq.json("plugins", "web", "disable", "@x/pulse").data["enabled"] is False
    state = hq.json("state", "show").data["state"]["plugins"]
    assert (state["enabled"], state["disabled"]) == ([], ["@x/pulse"])


def test_only_web_plugins_can_be_enabled(hq: Hq) -> None:
    refused = hq.json("plugins", "web", "enable", "gated")
    assert (refused.code, refused.error["code"]) == (2, "PLUGIN_KIND_MISMATCH")


def test_a_bad_manifest_is_a_warning_with_its_path_and_hides_no_other_plugin(hq: Hq) -> None:
    add_web_plugin(hq, "pulse")
    add_web_plugin(hq, "bad")
    (hq.root / "plugins/web/bad/package.json").write_text('{"name": "bad", "rawr": {"kind": "web"}}')
    answer = hq.json("plugins", "web", "list")
    assert [plugin["id"] for plugin in answer.data["plugins"]] == ["@x/pulse"]
    assert str(hq.root / "plugins/web/bad") in answer.document["warnings"][0]


def test_a_corrupt_state_is_an_error_for_readers_and_stays_as_it_is(hq: Hq) -> None:
    path = hq.json("state", "path").data["statePath"]
    add_web_plugin(hq, "pulse")
    hq.json("plugins", "web", "enable", "pulse")
    with open(path, "w") as file:
        file.write("{ torn")
    for arguments in (["state", "show"], ["plugins", "web", "list"]):
        refused = hq.json(*arguments)
        assert (refused.code, refused.error["code"]) == (1, "STATE_CORRUPT")
    with open(path) as file:
        assert file.read() == "{ torn"


def test_a_change_restores_a_corrupt_state_and_warns_of_it(hq: Hq) -> None:
    path = hq.json("state", "path").data["statePath"]
    for name in ("pulse", "tide"):
        add_web_plugin(hq, name)
    hq.json("plugins", "web", "enable", "pulse")
    with open(path, "w") as file:
        file.write("{ torn")
    answer = hq.json("plugins", "web", "enable", "tide")
    assert answer.data["state"]["plugins"]["enabled"] == ["@x/pulse", "@x/tide"]
    (warning,) = answer.document["warnings"]
    (kept,) = hq.json("state", "path").data["quarantined"]
    assert "was corrupt" in warning
    assert kept in warning
    with open(kept) as file:
        assert file.read() == "{ torn"


def test_doctor_is_content_with_a_fresh_instance_and_names_what_is_wrong(hq: Hq) -> None:
    healthy = hq.json("doctor")
    assert healthy.code == 0, healthy.out
    assert healthy.data["summary"]["error"] == 0
    (hq.root / "rawr.toml").write_text("[server]\nport = 'many'\n")
    sick = hq.json("doctor")
    assert (sick.code, sick.error["code"]) == (1, "DOCTOR_FOUND_ERRORS")
    assert "config.invalid" in [finding["id"] for finding in sick.document["data"]["findings"]]
    assert "[config.invalid]" in hq("doctor").out


def test_doctor_works_where_the_identity_itself_is_damaged(hq: Hq) -> None:
    (hq.root / ".rawr").mkdir(exist_ok=True)
    (hq.root / ".rawr/instance.json").write_text("{")
    sick = hq.json("doctor")
    assert "instance.identity_unreadable" in [finding["id"] for finding in sick.document["data"]["findings"]]
    refused = hq.json("status")
    assert (refused.code, refused.error["code"]) == (1, "FILE_CORRUPT")


def test_init_makes_an_instance_and_overwrites_nothing(hq: Hq) -> None:
    planned = hq.json("init", "new", "--dry-run").data
    assert planned["dryRun"] is True
    assert not (hq.root / "new").exists()
    made = hq.json("init", "new").data
    assert made["root"] == str(hq.root / "new")
    assert {file["action"] for file in made["files"]} == {"create"}
    (hq.root / "new/rawr.toml").write_text("[server]\nport = 0\n")
    again = hq.json("init", "new").data
    assert {file["action"] for file in again["files"]} == {"skip"}
    ran = hq.json("workflow", "coord", "run", "hello", "-I", "new")
    assert ran.data["run"]["output"]["greeting"] == "Hello, world!"
    refused = hq.json("init", "calls.txt/x/../../rawr.toml")
    assert (refused.code, refused.error["code"]) == (2, "INIT_REFUSED")


def test_a_configuration_that_cannot_be_used_is_named(hq: Hq) -> None:
    (hq.root / "rawr.toml").write_text("[server]\nprot = 1\n")
    refused = hq.json("up")
    assert (refused.code, refused.error["code"]) == (1, "CONFIG_INVALID")
    assert "prot" in refused.error["message"]


def test_secrets_that_others_can_read_are_not_used(hq: Hq) -> None:
    hq.json("token", "create", "--name", "x", "--scope", "orpc:*")
    (hq.root / ".rawr/secrets/tokens.json").chmod(0o644)
    refused = hq.json("token", "list")
    assert (refused.code, refused.error["code"]) == (1, "SECRET_EXPOSED")


def test_arguments_that_are_no_utf_8_are_still_answered_in_json(hq: Hq) -> None:
    refused = hq(b"plugins", b"web", b"enable", b"caf\xe9", b"--json")
    assert refused.code == 2
    assert refused.error["code"] == "PLUGIN_NOT_FOUND"
