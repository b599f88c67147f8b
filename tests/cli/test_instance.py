"""Which instance commands work on, and that the global owner is one only for who asks for it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import PATIENCE_S, Hq, Result, environment

OWNER_FILE = ".rawr/global-rawr-owner-path"
ALLOWED = {"RAWR_ALLOW_GLOBAL_OWNER": "1"}
_RUN_AND_TELL_WHAT_WAS_OPENED = """
import sys
opened = []
sys.addaudithook(lambda event, values: opened.append(str(values[0])) if event == "open" else None)
from rawr.cli.main import run
code = run(sys.argv[1:])
print("opened" if any(path.endswith("global-rawr-owner-path") for path in opened) else "left alone", file=sys.stderr)
sys.exit(code)
"""


class Outside:
    """A folder that belongs to no instance, and a home whose owner file names one."""

    def __init__(self, folder: Path, owner: Hq) -> None:
        self.home = folder / "home"
        self.owner_file = self.home / OWNER_FILE
        self.owner_file.parent.mkdir(parents=True)
        self.owner_file.write_text(f"{owner.root}\n")
        self.elsewhere = folder / "elsewhere"
        self.elsewhere.mkdir()

    def run(self, *args: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> Result:
        return self.python("-W", "error", "-m", "rawr", *args, cwd=cwd, env=env)

    def python(self, *args: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> Result:
        done = subprocess.run(
            [sys.executable, *args],
            cwd=cwd or self.elsewhere,
            env=environment(self.home, env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE_S,
            check=False,
        )
        return Result(code=done.returncode, out=done.stdout.decode(), err=done.stderr.decode())

    def current(self, *args: str, cwd: Path | None = None) -> Any:
        return self.run("instance", "current", "--json", *args, cwd=cwd).data


@pytest.fixture
def outside(tmp_path: Path, other_hq: Hq) -> Outside:
    return Outside(tmp_path.resolve(), other_hq)


def install_state(root: Path, source: str) -> dict[str, str]:
    return {"canonicalWorkspaceRoot": str(root), "canonicalWorkspaceSource": source}


def test_in_an_instance_the_install_state_is_its_own_whatever_the_owner_file_names(
    outside: Outside, hq: Hq, other_hq: Hq
) -> None:
    identity = json.loads(hq.json("status").out)["data"]["instanceId"]
    assert outside.current(cwd=hq.root) == {
        "root": str(hq.root),
        "id": identity,
        "source": "cwd",
        "seam": "owner-other-instance",
        "owner": {
            "file": str(outside.owner_file),
            "state": "instance",
            "target": str(other_hq.root),
            "realpath": str(other_hq.root),
        },
        "installState": install_state(hq.root, "workspace-root"),
    }


def test_the_install_state_is_that_of_the_owner_only_when_it_is_asked_for(
    outside: Outside, hq: Hq, other_hq: Hq
) -> None:
    asked = outside.current("--global-owner", cwd=hq.root)
    assert asked["installState"] == install_state(other_hq.root, "global-owner")
    assert (asked["root"], asked["source"]) == (str(hq.root), "cwd")
    # A variable that is always set lets the owner be found, and takes no authority from an instance.
    allowed = outside.run("instance", "current", "--json", cwd=hq.root, env=ALLOWED).data
    assert allowed["installState"] == install_state(hq.root, "workspace-root")


def test_outside_of_any_instance_the_owner_is_not_used_unasked(outside: Outside, other_hq: Hq) -> None:
    for command in (["state", "path"], ["plugins", "web", "enable", "anything"], ["instance", "current"], ["doctor"]):
        refused = outside.run(*command, "--json")
        assert (refused.code, refused.error["code"]) == (2, "INSTANCE_NOT_FOUND")
        assert str(other_hq.root) not in refused.out + refused.err
        assert "--global-owner" in refused.error["fix"]
    assert not (other_hq.root / ".rawr/instance.json").exists()


@pytest.mark.parametrize(("flag", "variable"), [(True, None), (False, "1"), (True, "0")])
def test_outside_of_any_instance_the_owner_is_used_when_it_is_asked_for(
    outside: Outside, other_hq: Hq, flag: bool, variable: str | None
) -> None:
    env = {} if variable is None else {"RAWR_ALLOW_GLOBAL_OWNER": variable}
    answer = outside.run("state", "path", "--json", *(["--global-owner"] if flag else []), env=env)
    assert answer.data["statePath"] == str(other_hq.root / ".rawr/state/state.json")
    assert answer.document["meta"]["instance"]["source"] == "global-owner"
    assert answer.document["meta"]["instance"]["root"] == str(other_hq.root)


@pytest.mark.parametrize("value", ["", "0", "true", "yes", "11"])
def test_only_the_one_value_of_the_variable_asks_for_the_owner(outside: Outside, value: str) -> None:
    refused = outside.run("state", "path", "--json", env={"RAWR_ALLOW_GLOBAL_OWNER": value})
    assert refused.error["code"] == "INSTANCE_NOT_FOUND"


def test_the_owner_is_a_fallback_behind_the_flag_the_environment_and_the_current_folder(
    outside: Outside, hq: Hq
) -> None:
    expected = str(hq.root / ".rawr/state/state.json")
    path = ["state", "path", "--json", "--global-owner"]
    by_flag = outside.run(*path, "--instance", str(hq.root))
    by_variable = outside.run(*path, env={"RAWR_INSTANCE": str(hq.root)})
    by_folder = outside.run(*path, cwd=hq.root / "plugins")
    assert [answer.data["statePath"] for answer in (by_flag, by_variable, by_folder)] == [expected] * 3


def test_a_wrong_choice_does_not_fall_through_to_the_owner(outside: Outside) -> None:
    by_flag = outside.run("state", "path", "--json", "--global-owner", "-I", "nowhere")
    by_variable = outside.run("state", "path", "--json", env={**ALLOWED, "RAWR_HQ_ROOT": "/nonexistent"})
    assert [answer.error["code"] for answer in (by_flag, by_variable)] == ["INSTANCE_NOT_FOUND"] * 2


def test_an_owner_that_is_asked_for_and_is_none_is_an_error_of_its_own(outside: Outside, hq: Hq) -> None:
    outside.owner_file.write_text("/nonexistent/hq\n")
    refused = outside.run("state", "path", "--json", "--global-owner")
    assert (refused.code, refused.error["code"]) == (2, "GLOBAL_OWNER_UNUSABLE")
    assert refused.error["message"] == (
        f"the global owner was asked for, and {outside.owner_file} names /nonexistent/hq, which is gone"
    )
    assert refused.error["details"] == {
        "path": str(outside.owner_file),
        "state": "target-gone",
        "target": "/nonexistent/hq",
    }
    # Where the owner would decide the install state it is the same error; elsewhere it stands in nobody's way.
    assert outside.run("instance", "current", "--json", "--global-owner", cwd=hq.root).code == 2
    assert outside.run("state", "path", "--json", "--global-owner", cwd=hq.root).code == 0
    assert outside.current(cwd=hq.root)["seam"] == "owner-other-instance"


@pytest.mark.parametrize(
    ("asked", "inside", "expected"),
    [(False, True, "left alone"), (True, True, "left alone"), (False, False, "left alone"), (True, False, "opened")],
)
def test_a_command_opens_the_owner_file_only_when_it_needs_the_owner_and_was_told_to(
    outside: Outside, hq: Hq, asked: bool, inside: bool, expected: str
) -> None:
    flags = ["--global-owner"] if asked else []
    where = hq.root if inside else outside.elsewhere
    done = outside.python("-c", _RUN_AND_TELL_WHAT_WAS_OPENED, "state", "path", "--json", *flags, cwd=where)
    assert done.err.splitlines()[-1] == expected


@pytest.mark.parametrize(
    ("content", "seam"),
    [
        (None, "owner-file-missing"),
        ("\n", "owner-file-empty"),
        ("\0", "owner-file-unreadable"),
        ("{hq}", "owner-current-instance"),
        ("{alias}", "owner-current-instance"),
        ("/nonexistent/hq", "owner-other-instance"),
    ],
)
def test_the_seam_says_how_the_owner_file_stands_to_the_current_instance(
    outside: Outside, hq: Hq, content: str | None, seam: str
) -> None:
    alias = outside.home / "alias"
    alias.symlink_to(hq.root)
    if content is None:
        outside.owner_file.unlink()
    else:
        outside.owner_file.write_text(content.format(hq=hq.root, alias=alias))
    assert outside.current(cwd=hq.root)["seam"] == seam


def test_people_see_the_same(outside: Outside, hq: Hq, other_hq: Hq) -> None:
    shown = outside.run("instance", "current", cwd=hq.root)
    assert (shown.code, shown.err) == (0, "")
    identity = json.loads((hq.root / ".rawr/instance.json").read_text())["id"]
    assert shown.out.splitlines() == [
        f"hq          {hq.root}",
        f"id          {identity}",
        "chosen by   cwd",
        f"plugins of  {hq.root} (workspace-root)",
        f"owner       {other_hq.root} (owner-other-instance)",
    ]


def test_a_path_in_the_owner_file_cannot_drive_a_terminal(outside: Outside, hq: Hq) -> None:
    outside.owner_file.write_bytes(b"/nowhere\x1b[2J\xff")
    shown = outside.run("instance", "current", cwd=hq.root)
    assert shown.code == 0
    assert "\x1b" not in shown.out
    assert outside.run("instance", "current", "--json", cwd=hq.root).code == 0


@pytest.mark.parametrize("home", ["", "relative"])
def test_a_home_that_says_nothing_stands_in_nobodys_way(outside: Outside, hq: Hq, home: str) -> None:
    shown = outside.run("instance", "current", "--json", cwd=hq.root, env={"HOME": home})
    assert shown.data["seam"] in ("owner-file-missing", "owner-file-unreadable")


def test_the_doctor_reports_the_owner_file_of_the_user(outside: Outside, hq: Hq) -> None:
    outside.owner_file.write_text("/nonexistent/hq\n")
    findings = outside.run("doctor", "--json", cwd=hq.root).data["findings"]
    (finding,) = [finding for finding in findings if finding["id"].startswith("owner.")]
    assert (finding["id"], finding["severity"]) == ("owner.target_gone", "warning")
    assert finding["evidence"]["path"] == str(outside.owner_file)
    assert outside.run("doctor", "--strict", cwd=hq.root).code == 1
