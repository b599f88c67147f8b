"""JSON Schemas of desks: which are accepted, and whether a value fits. The only module that knows the library.

Schemas come from whoever may save a workflow, so they are compiled without network or files, with a regular
expression engine that runs in linear time, and refused when checking them could take exponential time.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any, Final

import msgspec

from rawr.coordination.model import Desk
from rawr.coordination.schema_cost import STEPS_MAX, UncheckableSchemaError, steps_to_check, visits_by_depth
from rawr.errors import RawrError
from rawr.wire import DEPTH_MAX, JsonValue, depth_within, encode_canonical

ISSUES_MAX: Final = 100
MESSAGE_MAX: Final = 300
"""Messages quote the value, which can be megabytes."""


class SchemaRefusedError(RawrError):
    """A desk's schema is no JSON Schema, needs what we do not allow, or costs too much to check."""

    code = "DESK_SCHEMA_REFUSED"


class SchemaIssue(msgspec.Struct, frozen=True, kw_only=True):
    path: tuple[str | int, ...]
    message: str

    def __str__(self) -> str:
        where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in self.path)
        return f"{where.removeprefix('.')}: {self.message}" if where else self.message


class CompiledSchema(msgspec.Struct, frozen=True, kw_only=True):
    validator: Any
    visits: tuple[int, ...]
    """See `schema_cost.visits_by_depth`."""

    def issues(self, value: JsonValue) -> list[SchemaIssue]:
        steps = steps_to_check(self.visits, value)
        if steps is None:
            return [SchemaIssue(path=(), message=f"nested deeper than {DEPTH_MAX} levels")]
        if steps > STEPS_MAX:
            message = f"too large or too deep for its schema: {steps} steps to check it, {STEPS_MAX} at most"
            return [SchemaIssue(path=(), message=message)]
        found = islice(self.validator.iter_errors(value), ISSUES_MAX)
        return [SchemaIssue(path=tuple(error.instance_path), message=_shortened(error.message)) for error in found]


class SchemaChecker:
    """Compiled schemas of one host, kept by content. Not shared between instances."""

    def __init__(self, *, most: int = 512) -> None:
        self._compiled: dict[bytes, CompiledSchema] = {}
        self._most = most

    def issues(self, schema: dict[str, JsonValue], value: JsonValue) -> Sequence[SchemaIssue]:
        """Why `value` does not fit, at most `ISSUES_MAX` reasons; empty when it fits.

        Raises:
            SchemaRefusedError: the schema itself is not acceptable.
        """
        return self._compile(schema).issues(value)

    def _compile(self, schema: dict[str, JsonValue]) -> CompiledSchema:
        key = encode_canonical(schema)
        compiled = self._compiled.get(key)
        if compiled is None:
            compiled = compile_schema(schema)
            if len(self._compiled) >= self._most:
                self._compiled.clear()
            self._compiled[key] = compiled
        return compiled


def refused_schemas(desks: Sequence[Desk]) -> list[tuple[Desk, str, str]]:
    """`(desk, "inputSchema" or "outputSchema", why)` for each schema that would be enforced and cannot be."""
    refused = []
    judged: dict[bytes, str | None] = {}  # desks often share a schema
    for desk in desks:
        if desk.handler is msgspec.UNSET:
            continue
        for side, schema in (("inputSchema", desk.input_schema), ("outputSchema", desk.output_schema)):
            key = encode_canonical(schema)
            if key not in judged:
                judged[key] = _refusal(schema)
            if (why := judged[key]) is not None:
                refused.append((desk, side, why))
    return refused


def _refusal(schema: dict[str, JsonValue]) -> str | None:
    try:
        compile_schema(schema)
    except SchemaRefusedError as error:
        return error.message
    return None


def compile_schema(schema: dict[str, JsonValue]) -> CompiledSchema:
    """A check for JSON Schema 2020-12.

    Raises:
        SchemaRefusedError: not a schema, a reference to elsewhere, a pattern with look-around, or too costly.
    """
    from jsonschema_rs import Draft202012Validator, RegexOptions, ValidationError

    if not depth_within(schema, DEPTH_MAX):
        raise SchemaRefusedError(f"not acceptable: nested deeper than {DEPTH_MAX} levels")
    try:
        visits = visits_by_depth(schema)
    except UncheckableSchemaError as error:
        raise SchemaRefusedError(f"not acceptable: {error}") from error
    try:
        validator = Draft202012Validator(
            schema,
            offline=True,
            pattern_options=RegexOptions(size_limit=1 << 20, dfa_size_limit=1 << 21),
        )
    except (ValidationError, ValueError) as error:
        raise SchemaRefusedError(f"not an acceptable JSON Schema: {_reason(error)}") from error
    return CompiledSchema(validator=validator, visits=visits)


def _reason(error: Exception) -> str:
    why = _shortened(str(error).splitlines()[0] if str(error) else type(error).__name__)
    if why.endswith('is not a "regex"'):
        return f"{why} that takes linear time (no look-around, no back-references, bounded repetition)"
    return why


def _shortened(text: str) -> str:
    return text if len(text) <= MESSAGE_MAX else f"{text[: MESSAGE_MAX // 2]} … {text[-MESSAGE_MAX // 2 :]}"
