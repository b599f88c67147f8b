"""Which exit code each error code gives. One table; codes that it does not name say only that something failed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
"""Wrong usage, something that does not exist, or a wrong choice of instance."""
INCONCLUSIVE: Final = 3
"""Nothing failed, and something proved nothing; or a repair left something to do."""
CONFLICT: Final = 4
"""Two truths; a person has to choose."""
NOT_RUNNING: Final = 69
INTERNAL: Final = 70
TRY_AGAIN: Final = 75
PLUGIN_BROKEN: Final = 126
COMMAND_NOT_FOUND: Final = 127
INTERRUPTED: Final = 130

EXIT_BY_CODE: Final[Mapping[str, int]] = {
    "USAGE": USAGE,
    "BAD_REQUEST": USAGE,
    "INSTANCE_NOT_FOUND": USAGE,
    "ENGINE_APP_REFUSED": USAGE,
    "ENGINE_DEV_NOT_LOCAL": USAGE,
    "GATE_NOT_FOUND": USAGE,
    "GLOBAL_OWNER_UNUSABLE": USAGE,
    "INIT_REFUSED": USAGE,
    "INPUT_UNREADABLE": USAGE,
    "INVALID_INPUT_JSON": USAGE,
    "INVALID_RUN_ID": USAGE,
    "INVALID_SCOPE": USAGE,
    "INVALID_WORKFLOW_ID": USAGE,
    "MALFORMED_JSON": USAGE,
    "NOT_FOUND": USAGE,
    "PAYLOAD_TOO_LARGE": USAGE,
    "PLUGIN_KIND_MISMATCH": USAGE,
    "PLUGIN_NOT_FOUND": USAGE,
    "RUN_NOT_FOUND": USAGE,
    "STATE_REVISION_UNKNOWN": USAGE,
    "TOKEN_NOT_FOUND": USAGE,
    "WORKFLOW_NOT_FOUND": USAGE,
    "GATES_INCONCLUSIVE": INCONCLUSIVE,
    "STATE_REPAIR_INCOMPLETE": INCONCLUSIVE,
    "RUN_ID_CONFLICT": CONFLICT,
    "STATE_LOCK_HELD": CONFLICT,
    "WORKFLOW_EXISTS": CONFLICT,
    "WORKFLOW_VERSION_CONFLICT": CONFLICT,
    "SERVER_NOT_RUNNING": NOT_RUNNING,
    "SERVER_OTHER_INSTANCE": NOT_RUNNING,
    "INTERNAL": INTERNAL,
    "INTERNAL_SERVER_ERROR": INTERNAL,
    "DATABASE_BUSY": TRY_AGAIN,
    "ENGINE_SLOTS_TAKEN": TRY_AGAIN,
    "LOCK_TIMEOUT": TRY_AGAIN,
    "RUN_WAIT_TIMEOUT": TRY_AGAIN,
    "SERVER_TIMEOUT": TRY_AGAIN,
    "STATE_LOCK_TIMEOUT": TRY_AGAIN,
    "STATE_OUTCOME_UNKNOWN": TRY_AGAIN,
    "STORAGE_BUSY": TRY_AGAIN,
    "PLUGIN_LOAD_FAILED": PLUGIN_BROKEN,
    "PLUGIN_MANIFEST_INVALID": PLUGIN_BROKEN,
    "COMMAND_NOT_FOUND": COMMAND_NOT_FOUND,
    "INTERRUPTED": INTERRUPTED,
}


def exit_code_of(code: str) -> int:
    return EXIT_BY_CODE.get(code, FAILED)
