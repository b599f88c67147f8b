"""`rawr state …`: history, care, and locks whose holders live, were stopped, or died. Real processes throughout."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rawr.state import RepoStateStore
from rawr.storage.processes import process

if TYPE_CHECKING:
    from tests.cli.conftest import Hq

# Holds both locks, in the middle of a change, until it is told to go on.
HOLDER = """
import sys
from rawr.state import mutate_repo_state_atomically
def change(state):
    print("holding", flush=True)
    sys.stdin.readline()
    return state
mutate_repo_state_atomically(sys.argv[1], change)
"""


@contextlib.contextmanager
def holder(hq: Hq) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLDER, str(hq.root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as held:
        try:
            assert held.stdout is not None
            assert held.stdout.readline() == "holding\n"
            yield held
        finally:
            held.kill()


def store_of(hq: Hq) -> RepoStateStore:
    """With revisions 1 (a), 2 (a, b) and 3 (b)."""
    store = RepoStateStore(hq.root)
    store.enable("a")
    store.enable("b")
    store.disable("a")
    return store


def test_the_history_can_be_read_compared_and_restored(hq: Hq) -> None:
    store_of(hq)
    shown = hq.json("state", "show").data
    assert (shown["revision"], shown["state"]["plugins"]["enabled"]) == (3, ["b"])
    listed = hq.json("state", "history", "--limit", "2").data
    assert [(row["revision"], row["changes"]) for row in listed["revisions"]] == [
        (3, [{"op": "disable", "id": "a"}]),
        (2, [{"op": "enable", "id": "b"}]),
    ]
    assert listed["known"] == 3

    compared = hq.json("state", "diff", "2").data
    assert compared["enabled"] == {"gained": [], "lost": ["a"]}
    assert compared["disabled"] == {"gained": ["a"], "lost": []}
    assert hq("state", "diff", "0", "2").out == "+ enabled a\n+ enabled b\n"

    planned = hq.json("state", "restore", "2", "--dry-run").data["planned"]
    assert (planned["revision"], planned["enabled"]["gained"]) == (2, ["a"])
    restored = hq.json("state", "restore", "2").data
    assert (restored["restored"], restored["revision"]) == (2, 4)
    assert restored["state"]["plugins"]["enabled"] == ["a", "b"]
    assert hq("state", "diff", "2").out == "no difference\n"
    text = hq("state", "history").out
    assert text.splitlines()[0].split()[0::2] == ["4", "restore"]
    assert len(text.splitlines()) == 4


def test_an_unknown_revision_is_exit_code_2_with_the_range_that_is_there(hq: Hq) -> None:
    store_of(hq)
    for arguments in (["state", "restore", "9"], ["state", "diff", "9"]):
        refused = hq.json(*arguments)
        assert (refused.code, refused.error["code"]) == (2, "STATE_REVISION_UNKNOWN")
        assert refused.error["details"] == {"revision": 9, "oldest": 1, "newest": 3}


def test_a_write_of_another_program_is_in_the_history_before_it_is_adopted(hq: Hq) -> None:
    store = store_of(hq)
    store.path.write_bytes(b'{"version": 1, "plugins": {"enabled": ["\\u001b[31mx"]}}')
    newest = hq.json("state", "history").data["revisions"][0]
    assert (newest["revision"], newest["recorded"], newest["at"]) == (4, False, None)
    assert "written by another program" in hq("state", "history").out.splitlines()[0]
    assert "\x1b" not in hq("state", "show", env={"FORCE_COLOR": "1"}).out
    assert hq.json("state", "verify").code == 0


def test_a_corrupt_state_is_found_and_repaired(hq: Hq) -> None:
    store = store_of(hq)
    assert hq("state", "verify").code == 0
    store.path.write_bytes(b"\0" * 40)
    found = hq.json("state", "verify")
    assert (found.code, found.error["code"]) == (1, "STATE_UNSOUND")
    assert [finding["id"] for finding in found.document["data"]["findings"]] == ["state.corrupt"]
    assert "[state.corrupt]" in hq("state", "verify").out

    assert hq.json("state", "repair", "--dry-run").data["planned"]["actions"][0]["finding"] == "state.corrupt"
    assert store.path.read_bytes() == b"\0" * 40
    repaired = hq.json("state", "repair")
    assert [action["finding"] for action in repaired.data["actions"]] == ["state.corrupt"]
    assert "revision 3 was restored" in repaired.document["warnings"][0]
    assert hq.json("state", "show").data["state"]["plugins"]["enabled"] == ["b"]
    assert hq("state", "repair").out.startswith("nothing to repair")


def test_what_no_repair_may_touch_is_exit_code_1_or_3_and_stays(hq: Hq) -> None:
    store = store_of(hq)
    store.path.write_bytes(b'{"version": 2}')
    refused = hq.json("state", "repair")
    assert (refused.code, refused.error["code"]) == (3, "STATE_REPAIR_INCOMPLETE")
    assert store.path.read_bytes() == b'{"version": 2}'

    store.path.write_bytes(b"{ torn")
    store.files.journal.unlink()
    refused = hq.json("state", "repair")
    assert (refused.code, refused.error["code"]) == (1, "STATE_CORRUPT")
    assert store.path.read_bytes() == b"{ torn"


def test_a_holder_that_lives_is_named_and_keeps_its_lock(hq: Hq) -> None:
    with holder(hq) as held:
        seen = hq.json("state", "verify").data["holder"]
        assert (seen["pid"], seen["isAlive"]) == (held.pid, True)
        for force in ([], ["--force", seen["id"]]):
            refused = hq.json("state", "unlock", *force)
            assert (refused.code, refused.error["code"]) == (4, "STATE_LOCK_HELD")
            assert refused.error["details"]["holder"]["pid"] == held.pid
            assert f"kill {held.pid}" in refused.error["fix"]
        assert hq.json("state", "show").code == 0, "readers do not wait"
        assert held.stdin is not None
        held.stdin.write("\n")
        held.stdin.close()
        assert held.wait(60) == 0, "its change went through"


def test_a_holder_that_was_stopped_makes_a_change_time_out_with_its_name(hq: Hq) -> None:
    store = store_of(hq)
    with holder(hq) as held:
        os.kill(held.pid, signal.SIGSTOP)
        os.utime(store.files.lock_file, (0, store.files.lock_file.stat().st_mtime - 15))
        late = hq.json("state", "restore", "1")
        assert (late.code, late.error["code"]) == (75, "STATE_LOCK_TIMEOUT")
        assert late.error["details"]["holder"]["pid"] == held.pid
        found = hq.json("state", "verify")
        (finding,) = found.document["data"]["findings"]
        assert (found.code, finding["id"]) == (1, "state.lock_held_long")
        assert f"kill -CONT {held.pid}" in finding["fix"]
        assert late.error["details"]["holder"]["id"] == finding["evidence"]["holder"]["id"]
        assert hq.json("state", "unlock").code == 4


def test_the_lock_of_a_holder_that_died_is_found_and_removed(hq: Hq) -> None:
    store = store_of(hq)
    for command in ("unlock", "repair"):
        with holder(hq) as held:
            held.kill()
            held.wait(60)
        found = hq.json("state", "verify")
        (finding,) = found.document["data"]["findings"]
        assert (found.code, finding["id"]) == (1, "state.lock_stale")
        assert finding["evidence"]["holder"]["pid"] == held.pid
        assert hq.json("state", command).code == 0
        assert not store.files.lock_file.exists()
        assert hq.json("state", "verify").code == 0
    assert hq.json("state", "unlock").data["removed"] is False


def test_the_lock_file_of_another_program_that_lives_is_removed_by_force_with_its_id(hq: Hq) -> None:
    store = store_of(hq)
    me = process(os.getpid())
    assert me is not None
    acquired_at = "2026-01-01T00:00:00.000Z"
    store.files.lock_file.write_text(json.dumps({"pid": me.pid, "acquiredAt": acquired_at}))
    refused = hq.json("state", "unlock")
    assert (refused.code, refused.error["details"]["holder"]["pid"]) == (4, me.pid)
    assert hq.json("state", "unlock", "--force", "1@then").code == 4
    removed = hq.json("state", "unlock", "--force", f"{me.pid}@{acquired_at}").data
    assert (removed["removed"], removed["reason"]) == (True, "by force")
    assert not store.files.lock_file.exists()


def test_the_files_of_the_state_are_named(hq: Hq) -> None:
    store = store_of(hq)
    named = hq.json("state", "path").data
    assert named["statePath"] == str(store.path)
    assert named["journalPath"] == str(store.files.journal)
    assert named["kernelLockPath"] == str(store.files.kernel_lock)
    assert (named["exists"], named["quarantined"]) == (True, [])
    assert hq("state", "path").out == f"{store.path}\n"
