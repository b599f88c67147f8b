"""Every difference from the TypeScript HQ that the documentation lists is held by a test, and every one that the
recorded answers show is listed.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import Final

import pytest
from tests.host.test_recorded_answers import DIFFERENCES

from rawr.host.settings import HostSettings

TESTS: Final = Path(__file__).parent.parent
PAGE: Final = (TESTS.parent / "docs" / "reference" / "compatibility.md").read_text(encoding="utf-8")

HELD_BY: Final[dict[tuple[str, str], tuple[str, ...]]] = {
    ("Who is calling", "`/rpc`"): (
        "host/test_caller_matrix.py::test_without_a_right_secret_every_family_refuses",
        "host/test_caller_matrix.py::test_a_label_takes_the_cli_key_off_rpc_and_never_puts_anybody_on",
    ),
    ("Who is calling", "`/api/orpc`, `/api/workflows`"): (
        "host/test_caller_matrix.py::test_without_a_right_secret_every_family_refuses",
        "host/test_caller_matrix.py::test_a_missing_scope_is_named",
    ),
    ("Who is calling", "too many calls"): (
        "host/test_rates.py::test_a_key_that_calls_too_often_is_told_when_to_come_again",
        "host/test_rates.py::test_an_address_that_fails_too_often_is_slowed_down",
    ),
    ("Who is calling", "first-party pages"): (
        "host/test_console.py::test_a_session_opens_rpc_for_our_own_pages_and_never_the_api",
        "host/test_attack_callers.py::test_an_attack_is_refused_and_tells_nothing",
    ),
    ("Who is calling", "forwarded host"): ("host/test_guard.py::test_forwarded_hosts_are_not_looked_at",),
    ("Who is calling", "foreign `Host`"): ("host/test_guard.py::test_any_other_host_is_misdirected",),
    ("Who is calling", "listening"): ("host/test_compatibility.py::test_an_hq_listens_on_the_loopback_interface",),
    ("Who is calling", "signature of `/api/inngest`"): (
        "host/test_ingress.py::test_a_header_with_anything_else_in_it_is_no_signature",
        "host/test_ingress.py::test_the_window_is_five_minutes_both_ways",
        "host/test_ingress_attacks.py::test_a_recorded_call_is_refused_at_any_later_time",
    ),
    ("Requests and answers", "a body over the limit"): (
        "host/test_attack_http.py::test_a_hostile_request_gets_one_refusal_and_nothing_behind_it_is_answered",
    ),
    ("Requests and answers", "a long URL"): (
        "host/test_attack_http.py::test_a_hostile_request_gets_one_refusal_and_nothing_behind_it_is_answered",
    ),
    ("Requests and answers", "the first event of a run"): (
        "host/test_graceful_stop.py::test_a_request_can_be_followed_from_its_answer_to_its_run_and_its_log",
    ),
    ("Requests and answers", "request ids"): ("host/test_guard.py::test_a_request_keeps_its_own_id_when_that_is_one",),
    ("Requests and answers", "`GET /health`"): (
        "host/test_families.py::test_health_names_the_instance_and_ready_says_what_is_missing",
    ),
    ("Requests and answers", "dot segments in a path"): (
        "host/test_recorded_answers.py::test_recorded_answers_come_back",
    ),
    ("Requests and answers", "path parameter and body disagree"): (
        "host/test_families.py::test_what_the_path_says_cannot_be_changed_by_query_or_body",
    ),
    ("Requests and answers", "`meta` that tags a place as undefined"): (
        "host/test_recorded_answers.py::test_recorded_answers_come_back",
    ),
    ("Requests and answers", "batches on `/rpc`"): ("host/test_rpc_batch.py",),
    ("Requests and answers", "key order of saved workflows"): (
        "host/test_recorded_answers.py::test_recorded_answers_come_back",
    ),
    ("Requests and answers", "a run id of another workflow"): (
        "host/test_families.py::test_the_same_run_id_for_another_workflow_is_a_conflict_that_changes_nothing",
        "unit/coordination/test_service.py::test_d5_a_run_id_of_another_workflow_is_refused_and_changes_nothing",
    ),
    ("Requests and answers", "an older version of a workflow"): (
        "host/test_families.py::test_an_older_version_over_a_newer_one_is_a_conflict",
    ),
    ("Requests and answers", "a version that a run has used"): (
        "unit/coordination/test_service.py::test_a_version_that_has_been_run_cannot_change",
    ),
    ("Requests and answers", "an input that is no object"): (
        "cli/test_runs.py::test_input_is_passed_as_given",
        "host/test_families.py::test_a_run_input_is_passed_as_given",
    ),
    ("Requests and answers", "a workflow that cannot run"): (
        "unit/coordination/test_service.py::test_d9_what_cannot_be_run_yet_can_be_saved_and_is_refused_to_run",
    ),
    ("Requests and answers", "a torn file of a run"): (
        "host/test_open_host.py::test_a_damaged_store_is_an_error_and_stays_as_it_is",
    ),
    ("Requests and answers", "`getRuntimeState`"): (
        "host/test_server_process.py::test_the_state_says_which_instance_it_is_of",
    ),
    ("Requests and answers", "trace links"): (
        "unit/telemetry/test_contract.py::test_without_an_inngest_server_there_is_no_link_to_one",
    ),
    ("OpenAPI document", "`servers`"): (
        "host/test_openapi_document.py::test_the_server_url_and_a_path_lead_to_the_procedure",
    ),
    ("OpenAPI document", "responses"): (
        "host/test_openapi_document.py::test_every_operation_documents_its_errors",
        "host/test_openapi_document.py::test_every_documented_refusal_comes_as_documented",
    ),
    ("OpenAPI document", "security"): (
        "host/test_openapi_document.py::test_the_scope_that_an_operation_names_opens_it_and_no_other",
    ),
    ("OpenAPI document", "`/api/workflows`"): ("host/test_openapi_document.py::test_a_document_is_valid_openapi",),
    ("Runs", "desks"): ("unit/execution/test_program.py",),
    ("Runs", "`desk.failed`"): ("unit/telemetry/test_checker.py", "unit/execution/test_program.py"),
    ("Runs", "ids of events"): (
        "unit/coordination/test_lifecycle.py::test_d8_the_id_of_an_event_is_derived_from_run_and_key",
        "stores/test_coordination_store.py::test_a_fact_that_is_reported_twice_is_one_event",
    ),
    ("Runs", "timeline"): (
        "stores/test_coordination_sqlite.py::test_three_processes_that_append_a_hundred_each_leave_no_gap",
        "stores/test_coordination_sqlite.py::test_appending_and_looking_up_never_scan_or_sort_a_table",
    ),
    ("Runs", "end of a run"): (
        "unit/coordination/test_service.py::test_d6_a_run_that_ended_while_it_was_handed_over_stays_ended",
        "unit/coordination/test_lifecycle.py::test_no_sequence_of_facts_leads_out_of_a_terminal_status",
    ),
    ("Runs", "execution"): ("host/test_open_host.py::test_a_run_completes_without_any_socket",),
    ("State", "corrupt file"): (
        "unit/state/test_corruption.py::test_every_prefix_of_the_file_is_an_error_and_is_restored_without_losing_a_byte",
    ),
    ("State", "file of another version"): (
        "unit/state/test_state_store.py::test_a_file_of_version_2_is_refused_and_survives",
    ),
    ("State", "unknown keys"): ("unit/state/test_state_model.py::test_unknown_keys_survive_every_change",),
    ("State", "stale lock"): ("faults/test_state_interop.py::test_many_who_find_one_stale_lock_lose_nothing",),
    ("State", "dead holder"): (
        "unit/state/test_stale.py::test_a_lock_of_this_rawr_without_the_kernel_lock_is_taken_over_at_once",
    ),
    ("State", "power cut"): ("faults/test_state_power_cuts.py",),
    ("State", "`enable`"): ("unit/state/test_state_model.py::test_enabling_clears_disabled_and_the_reverse",),
    ("Plugins and commands", "disabled plugins"): (
        "unit/hq/test_hq.py::test_code_of_plugins_that_are_not_workflows_is_never_imported",
    ),
    ("Plugins and commands", "one bad manifest"): (
        "unit/workspace/test_discovery.py::test_a_bad_manifest_is_a_fault_with_its_path_and_leaves_the_others_alone",
    ),
    ("Plugins and commands", "failing commands"): (
        "cli/test_envelope.py::test_our_own_fault_is_internal_and_its_trace_only_in_the_log",
        "cli/test_runs.py::test_what_is_not_there_is_exit_code_2",
    ),
    ("Plugins and commands", "an instance that does not exist"): ("unit/workspace/test_root.py",),
    ("Plugins and commands", "global owner"): (
        "unit/workspace/test_root.py::test_the_global_owner_is_asked_only_when_nothing_else_names_an_instance",
        "unit/instance/test_install.py::test_the_owner_file_is_opened_only_where_it_is_allowed",
    ),
}

LISTED_AS: Final = {
    "health names the instance": "`GET /health`",
    "a foreign Host never reaches a family": "foreign `Host`",
    "anybody can send a forwarded host: it is not looked at": "forwarded host",
    "a tag for undefined must stand on null": "`meta` that tags a place as undefined",
    "batches are spoken: the client makes one request of several calls": "batches on `/rpc`",
    "routes are matched on the path as it came; dot segments are not resolved for anybody": "dot segments in a path",
    "the original overwrites the other workflow's run as failed": "a run id of another workflow",
}
"""The reasons that the recorded answers give for a difference, and the row that tells users of it."""


def rows() -> set[tuple[str, str]]:
    """Section and first cell of each row of the tables of differences."""
    found = set()
    for section in PAGE.split("\n## ")[1:]:
        title = section.partition("\n")[0]
        if "The TypeScript HQ" in section:
            found |= {(title, cell) for cell in re.findall(r"^\| ([^|]*[^| ]) +\|", section, re.MULTILINE)}
    return found


def test_every_difference_that_is_listed_is_held_by_a_test() -> None:
    assert rows() == set(HELD_BY)


def test_an_hq_listens_on_the_loopback_interface() -> None:
    assert HostSettings().bind_host == "127.0.0.1"


def test_every_difference_of_the_recorded_answers_is_listed() -> None:
    assert {difference.reason for difference in DIFFERENCES.values()} == set(LISTED_AS)
    assert set(LISTED_AS.values()) <= {cell for _, cell in rows()}


@pytest.mark.parametrize("test", sorted({test for tests in HELD_BY.values() for test in tests}))
def test_the_tests_exist(test: str) -> None:
    path, _, name = test.partition("::")
    assert any(found.startswith("test_") for found in functions_of(path))
    assert not name or name in functions_of(path)


@cache
def functions_of(path: str) -> frozenset[str]:
    tree = ast.parse((TESTS / path).read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
