"""With `--json` stdout is exactly one document, whatever happens; for people there is never a stack trace."""

from __future__ import annotations

import importlib
import json
import pkgutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import rawr
from rawr.__main__ import main
from rawr.cli.context import Invocation, command
from rawr.cli.exit_codes import EXIT_BY_CODE, exit_code_of
from rawr.cli.main import run
from rawr.cli.output import LeftRunningError, Outcome, colour_wanted
from rawr.cli.table import TABLE, Command, Table
from rawr.client.http import RemoteError
from rawr.errors import RawrError
from rawr.testing.workspace import make_instance

Play = Callable[[Callable[[Invocation], Outcome]], Table]


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Play:
    """A table with one command, `play`, that does what the test says."""

    def table_of(function: Callable[[Invocation], Outcome]) -> Table:
        module = ModuleType("played")
        vars(module)["play"] = command("play", "Play.")(function)
        monkeypatch.setitem(sys.modules, "played", module)
        return Table(commands={("play",): Command("played:play", "Play.")}, groups={(): "rawr"})

    return table_of


@pytest.fixture(autouse=True)
def _in_an_instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(make_instance(tmp_path / "hq"))
    for name in ("RAWR_INSTANCE", "RAWR_WORKSPACE_ROOT", "RAWR_HQ_ROOT", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)


def document(capsys: pytest.CaptureFixture[str]) -> Any:
    captured = capsys.readouterr()
    assert captured.err == ""
    return json.loads(captured.out)


@pytest.mark.parametrize(
    ("arguments", "code", "exit_code"),
    [
        (["nope"], "COMMAND_NOT_FOUND", 127),
        (["workflow", "nope"], "COMMAND_NOT_FOUND", 127),
        ([], "USAGE", 2),
        (["workflow"], "USAGE", 2),
        (["version", "extra"], "USAGE", 2),
        (["version", "--no-such-flag"], "USAGE", 2),
        (["--no-such-flag"], "USAGE", 2),
        (["--instance"], "USAGE", 2),
        (["version", "--dry-run"], "USAGE", 2),
        (["--dry-run", "version"], "USAGE", 2),
        (["serve", "--port", "99999"], "USAGE", 2),
        (["token", "create"], "USAGE", 2),
        (["status", "--instance", "/nonexistent"], "INSTANCE_NOT_FOUND", 2),
        (["--instance", "/nonexistent", "status"], "INSTANCE_NOT_FOUND", 2),
        (["token", "create", "--name", "x", "--scope", "everything"], "INVALID_SCOPE", 2),
        (["token", "revoke", "nope"], "TOKEN_NOT_FOUND", 2),
        (["plugins", "web", "enable", "nope"], "PLUGIN_NOT_FOUND", 2),
        (["workflow", "coord", "create", "--id", "../../x"], "INVALID_WORKFLOW_ID", 2),
        (["workflow", "coord", "run", "x", "--input", "{"], "INVALID_INPUT_JSON", 2),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_a_refused_command_line_is_one_document_and_its_exit_code(
    arguments: list[str], code: str, exit_code: int, first: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--json", *arguments] if first else [*arguments, "--json"]
    if arguments == ["--instance"] and not first:
        given = ["--json", "--instance"]  # `--instance --json` names a folder
    assert main(given) == exit_code
    answer = document(capsys)
    assert (answer["ok"], answer["error"]["code"]) == (False, code)
    assert answer["error"]["message"]
    assert answer["meta"]["rawrVersion"] == rawr.__version__


@pytest.mark.parametrize(
    "arguments", [["version"], ["--version"], ["--help"], ["up", "--help"], ["workflow", "--help"], ["state", "show"]]
)
def test_a_good_answer_is_one_document_too(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*arguments, "--json"]) == 0
    assert document(capsys)["ok"] is True


def test_a_mistyped_command_is_told_what_was_meant(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pluggins"]) == 127
    assert "did you mean plugins?" in capsys.readouterr().err


def test_errors_for_people_go_to_stderr_with_the_way_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "-I", "/nonexistent"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "error: --instance names /nonexistent" in captured.err
    assert "try: " in captured.err


def test_our_own_fault_is_internal_and_its_trace_only_in_the_log(
    play: Play, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def crash(invocation: Invocation) -> Outcome:
        assert invocation.instance.id
        raise LookupError("a shelf is missing")

    assert run(["play", "--json"], table=play(crash)) == 70
    answer = document(capsys)
    assert answer["error"]["code"] == "INTERNAL"
    assert "LookupError: a shelf is missing" in answer["error"]["message"]
    log = tmp_path / "hq/.rawr/logs/cli.log"
    assert answer["error"]["details"]["log"] == str(log)
    assert "Traceback" in log.read_text()
    assert run(["play"], table=play(crash)) == 70
    assert "Traceback" not in capsys.readouterr().err


def test_our_own_fault_before_an_instance_is_known_is_a_document_too(
    play: Play, capsys: pytest.CaptureFixture[str]
) -> None:
    def crash(_: Invocation) -> Outcome:
        raise RecursionError("round and round")

    assert run(["play", "--json"], table=play(crash)) == 70
    assert document(capsys)["error"]["details"]["log"] is None


def test_ctrl_c_is_interrupted_and_130(play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(_: Invocation) -> Outcome:
        raise KeyboardInterrupt

    assert run(["play", "--json"], table=play(interrupted)) == 130
    assert document(capsys)["error"] == {"code": "INTERRUPTED", "message": "interrupted"}
    assert run(["play"], table=play(interrupted)) == 130
    assert capsys.readouterr().err == "error: interrupted\n"


def test_ctrl_c_while_waiting_says_what_goes_on(play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    def left(_: Invocation) -> Outcome:
        raise LeftRunningError("run r1 goes on", details={"runId": "r1"}, fix="rawr workflow coord status r1")

    assert run(["play", "--json"], table=play(left)) == 130
    assert document(capsys)["error"] == {
        "code": "INTERRUPTED",
        "message": "run r1 goes on",
        "details": {"runId": "r1"},
        "fix": "rawr workflow coord status r1",
    }


def test_ctrl_c_before_anything_is_imported_is_a_document(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("rawr.cli.main.run", interrupted)
    assert main(["status", "--json"]) == 130
    assert document(capsys)["error"]["code"] == "INTERRUPTED"


def test_a_failure_may_carry_data_and_warnings(play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    class ShortError(RawrError):
        code = "SHORT"

    def fail(invocation: Invocation) -> Outcome:
        invocation.warn("it is late")
        return Outcome(data={"seen": 1}, error=ShortError("it fell short", details={"by": 2}, fix="stretch"))

    assert run(["play", "--json"], table=play(fail)) == 1
    answer = document(capsys)
    assert answer.pop("meta")
    assert answer == {
        "ok": False,
        "error": {"code": "SHORT", "message": "it fell short", "details": {"by": 2}, "fix": "stretch"},
        "data": {"seen": 1},
        "warnings": ["it is late"],
    }


def test_progress_and_warnings_never_reach_stdout(play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    def talk(invocation: Invocation) -> Outcome:
        invocation.say("working")
        invocation.warn("careful")
        return Outcome(data=1, text="done")

    assert run(["play"], table=play(talk)) == 0
    captured = capsys.readouterr()
    assert captured.out == "done\n"
    assert captured.err == "working\nwarning: careful\n"
    assert run(["play", "--quiet"], table=play(talk)) == 0
    assert "working" not in capsys.readouterr().err
    assert run(["play", "--json"], table=play(talk)) == 0
    assert document(capsys)["warnings"] == ["careful"]


def test_text_that_is_no_unicode_is_shown_and_is_still_json(play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    def odd(_: Invocation) -> Outcome:
        return Outcome(data={"path": "caf\udce9"}, text="caf\udce9")

    assert run(["play", "--json"], table=play(odd)) == 0
    assert document(capsys)["data"] == {"path": "caf\udce9"}
    assert run(["play"], table=play(odd)) == 0
    assert capsys.readouterr().out == "caf\\udce9\n"


def test_error_text_cannot_drive_the_terminal(play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    class RudeError(RawrError):
        code = "RUDE"

    def rude(_: Invocation) -> Outcome:
        raise RudeError("\x1b[2Jgone\x07")

    assert run(["play"], table=play(rude)) == 1
    assert capsys.readouterr().err == "error: \ufffd[2Jgone\ufffd\n"


def test_meta_says_which_instance_answered_and_how_it_was_chosen(
    play: Play, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def where(invocation: Invocation) -> Outcome:
        return Outcome(data=invocation.instance.id)

    root = str(tmp_path / "hq")
    assert run(["play", "--json"], table=play(where)) == 0
    answer = document(capsys)
    assert answer["meta"]["instance"] == {"root": root, "id": answer["data"], "source": "cwd"}
    assert answer["meta"]["durationMs"] >= 0
    other = make_instance(tmp_path / "second")
    assert run(["play", "--json", "-I", str(other)], table=play(where)) == 0
    assert document(capsys)["meta"]["instance"]["source"] == "flag"
    monkeypatch.setenv("RAWR_INSTANCE", str(other))
    assert run(["play", "--json"], table=play(where)) == 0
    answer = document(capsys)
    assert answer["meta"]["instance"]["source"] == "env:RAWR_INSTANCE"
    assert answer["warnings"][0].startswith("INSTANCE_ENV_OVERRIDES_CWD")


def test_the_flag_nearer_to_the_command_wins(play: Play, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    second = make_instance(tmp_path / "second")

    def where(invocation: Invocation) -> Outcome:
        return Outcome(data=str(invocation.instance.root))

    assert run(["-I", str(tmp_path / "hq"), "play", "-I", str(second), "--json"], table=play(where)) == 0
    assert document(capsys)["data"] == str(second)


@pytest.mark.parametrize(
    ("environ", "terminal", "wanted"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"TERM": "dumb"}, True, False),
        ({"NO_COLOR": "1"}, True, False),
        ({"NO_COLOR": ""}, True, True),
        ({"FORCE_COLOR": "1"}, False, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, True, False),
    ],
)
def test_colours_are_for_terminals_unless_somebody_says_otherwise(
    environ: dict[str, str], terminal: bool, wanted: bool
) -> None:
    class Stream:
        def isatty(self) -> bool:
            return terminal

    assert colour_wanted(Stream(), environ) is wanted  # type: ignore[arg-type]  # only asked whether it is a terminal


def test_an_error_of_the_server_has_the_exit_code_of_its_own_code() -> None:
    assert exit_code_of(RemoteError("RUN_NOT_FOUND", 404, "run not found").code) == 2
    assert exit_code_of(RemoteError("RUN_ID_CONFLICT", 409, "taken").code) == 4
    assert exit_code_of("SOMETHING_NEW") == 1


OF_THE_COMMAND_LINE_OR_THE_SERVER = {"NOT_FOUND", "INTERNAL_SERVER_ERROR"}


def test_every_code_in_the_exit_table_exists() -> None:
    """A code that nobody raises any more would make the table a lie."""
    for module in pkgutil.walk_packages(rawr.__path__, "rawr."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    raised = set(OF_THE_COMMAND_LINE_OR_THE_SERVER)
    waiting: list[type[RawrError]] = [RawrError]
    while waiting:
        kind = waiting.pop()
        raised.add(kind.code)
        waiting.extend(kind.__subclasses__())
    assert set(EXIT_BY_CODE) - raised == set()


def test_the_table_is_the_one_that_main_uses(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == 0
    assert capsys.readouterr().out == f"rawr {rawr.__version__}\n"
    assert ("version",) in TABLE.commands
