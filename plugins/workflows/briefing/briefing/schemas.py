"""What flows between the desks, as JSON Schemas. Closed objects, so that a misspelt key is an error."""

from __future__ import annotations

from typing import Any, Final

from .scope import LIMITS

Schema = dict[str, Any]

_LIMITS_MAX: Final = {
    "days": 36_500,
    "commits": 100_000,
    "files": 1_000_000,
    "fileBytes": 64 * 1024 * 1024,
    "readBytes": 16 * 1024 * 1024 * 1024,
    "seconds": 90,
    "manifests": 5_000,
}


def _object(properties: dict[str, Schema], *, optional: tuple[str, ...] = ()) -> Schema:
    return {
        "type": "object",
        "required": [name for name in properties if name not in optional],
        "properties": properties,
        "additionalProperties": False,
    }


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


TEXT: Final[Schema] = {"type": "string"}
MOMENT: Final[Schema] = {"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$"}
COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
YES_OR_NO: Final[Schema] = {"type": "boolean"}
TEXTS: Final = _list(TEXT)

_LIMIT_SCHEMAS: Final = {name: {"type": "integer", "minimum": 1, "maximum": _LIMITS_MAX[name]} for name in LIMITS}

REQUEST: Final = _object(
    {
        "path": {"type": "string", "minLength": 1},
        "limits": _object(_LIMIT_SCHEMAS, optional=tuple(LIMITS)),
    },
    optional=("path", "limits"),
)

REPOSITORY: Final = _object(
    {
        "root": TEXT,
        "name": TEXT,
        "branch": {"type": ["string", "null"]},
        "shallow": YES_OR_NO,
        "head": {
            **_object({"commit": TEXT, "at": MOMENT, "author": TEXT, "subject": TEXT}),
            "type": ["object", "null"],
        },
        "commits": COUNT,
        "commitsExact": YES_OR_NO,
    }
)

SCOPE: Final = _object(
    {"repository": REPOSITORY, "generatedAt": MOMENT, "since": MOMENT, "limits": _object(_LIMIT_SCHEMAS)}
)

ACTIVITY: Final = _object(
    {
        "commits": COUNT,
        "activeDays": COUNT,
        "authorCount": COUNT,
        "authors": _list(_object({"name": TEXT, "commits": COUNT})),
        "fileCount": COUNT,
        "hotFiles": _list(_object({"path": TEXT, "commits": COUNT})),
        "recent": _list(_object({"commit": TEXT, "day": TEXT, "author": TEXT, "subject": TEXT})),
        "leftOut": TEXTS,
    }
)

INVENTORY: Final = _object(
    {
        "files": COUNT,
        "filesRead": COUNT,
        "lines": COUNT,
        "bytes": COUNT,
        "binaryFiles": COUNT,
        "links": COUNT,
        "submodules": COUNT,
        "languages": _list(_object({"language": TEXT, "files": COUNT, "lines": COUNT, "bytes": COUNT})),
        "largest": _list(_object({"path": TEXT, "bytes": COUNT, "lines": {"type": ["integer", "null"], "minimum": 0}})),
        "notes": _object(
            {
                "count": COUNT,
                "places": _list(
                    _object(
                        {
                            "path": TEXT,
                            "line": COUNT,
                            "kind": {"type": "string", "enum": ["TODO", "FIXME"]},
                            "text": TEXT,
                        }
                    )
                ),
            }
        ),
        "leftOut": TEXTS,
    }
)

DEPENDENCIES: Final = _object(
    {
        "manifests": _list(
            _object(
                {
                    "path": TEXT,
                    "count": COUNT,
                    "dependencies": _list(_object({"name": TEXT, "spec": TEXT, "group": TEXT})),
                }
            )
        ),
        "count": COUNT,
        "problems": _list(_object({"path": TEXT, "why": TEXT})),
        "leftOut": TEXTS,
    }
)

FINDINGS: Final = _object({"scope": SCOPE, "activity": ACTIVITY, "inventory": INVENTORY, "dependencies": DEPENDENCIES})

_MATERIAL: Final[dict[str, Schema]] = {
    "repository": REPOSITORY,
    "generatedAt": MOMENT,
    "since": MOMENT,
    "days": COUNT,
    "activity": ACTIVITY,
    "inventory": INVENTORY,
    "dependencies": DEPENDENCIES,
}

MATERIAL: Final = _object(_MATERIAL)
REVIEWED: Final = _object({**_MATERIAL, "checked": TEXTS})
WRITTEN: Final = _object({"path": TEXT, "repository": TEXT, "summary": TEXT, "lines": COUNT, "bytes": COUNT})
