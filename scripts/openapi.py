"""`make openapi`: write the published documents to docs/openapi, as a server on the default port serves them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from rawr.host import openapi, workflows
from rawr.hq import default_capabilities
from rawr.procedures.catalog import PROCEDURES
from rawr.wire import JsonValue

FOLDER: Final = Path(__file__).parents[1] / "docs" / "openapi"
BASE_URL: Final = "http://localhost:3000"


def documents() -> dict[str, JsonValue]:
    """Each document by the name of its file."""
    return {
        "orpc.json": openapi.document(PROCEDURES, base_url=BASE_URL),
        "workflows.json": workflows.document(default_capabilities(), base_url=BASE_URL),
    }


def text_of(document: JsonValue) -> str:
    return json.dumps(document, indent=2) + "\n"


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, document in documents().items():
        (FOLDER / name).write_text(text_of(document))
        print(f"wrote {FOLDER / name}")


if __name__ == "__main__":
    main()
