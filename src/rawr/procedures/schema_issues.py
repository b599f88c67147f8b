"""Every reason why a JSON value does not fit an input type, in the wording of the published contract. Pure.

`msgspec.convert` stops at the first misfit; callers are owed the whole list. This walk runs on the failure
path only. The order is the contract's: for an object its missing keys, then its unknown keys, then its
properties as declared; for a list its items in order.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import inspect

from rawr.wire import JsonValue, Wire

PathStep = str | int


class SchemaIssue(Wire, frozen=True, kw_only=True):
    """One misfit. `path` is absent at the root."""

    message: str
    path: tuple[PathStep, ...] = ()


ISSUES_MAX = 100
"""A hostile document can have millions of misfits; the first hundred say enough."""


def schema_issues(value: object, expected: type[Any]) -> tuple[SchemaIssue, ...]:
    """All misfits of `value` (up to `ISSUES_MAX`); empty when it fits. `msgspec.UNSET` stands for an absent value."""
    found: list[SchemaIssue] = []
    _check(value, inspect.type_info(expected), (), found)
    return tuple(found[:ISSUES_MAX])


def with_integers(value: JsonValue) -> JsonValue:
    """`value` with integral floats as ints: JSON has one kind of number, so `1.0` is the integer 1."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: with_integers(child) for key, child in value.items()}
    if isinstance(value, list):
        return [with_integers(child) for child in value]
    return value


def _check(value: object, expected: inspect.Type, path: tuple[PathStep, ...], found: list[SchemaIssue]) -> None:
    if len(found) >= ISSUES_MAX:
        return
    match expected:
        case inspect.AnyType():
            return
        case inspect.Metadata():
            _check(value, expected.type, path, found)
        case inspect.StructType():
            _check_struct(value, expected, path, found)
        case inspect.DictType():
            _check_dict(value, expected, path, found)
        case inspect.ListType() | inspect.VarTupleType() | inspect.CollectionType():
            _check_list(value, expected.item_type, path, found)
        case inspect.UnionType():
            _check_union(value, expected, path, found)
        case _:
            message = _scalar_misfit(value, expected)
            if message is not None:
                found.append(SchemaIssue(message=message, path=path))


def _check_struct(
    value: object, expected: inspect.StructType, path: tuple[PathStep, ...], found: list[SchemaIssue]
) -> None:
    if not isinstance(value, dict):
        found.append(SchemaIssue(message="must be object", path=path))
        return
    missing = [field.encode_name for field in expected.fields if field.required and field.encode_name not in value]
    if missing:
        found.append(SchemaIssue(message=f"must have required properties {', '.join(missing)}", path=path))
    known = {field.encode_name for field in expected.fields}
    if expected.forbid_unknown_fields and any(key not in known for key in value):
        found.append(SchemaIssue(message="must not have additional properties", path=path))
    for field in expected.fields:
        if field.encode_name in value:
            _check(value[field.encode_name], field.type, (*path, field.encode_name), found)


def _check_dict(
    value: object, expected: inspect.DictType, path: tuple[PathStep, ...], found: list[SchemaIssue]
) -> None:
    if not isinstance(value, dict):
        found.append(SchemaIssue(message="must be object", path=path))
        return
    for key, child in value.items():
        _check(child, expected.value_type, (*path, key), found)


def _check_list(value: object, item: inspect.Type, path: tuple[PathStep, ...], found: list[SchemaIssue]) -> None:
    if not isinstance(value, list):
        found.append(SchemaIssue(message="must be array", path=path))
        return
    for index, child in enumerate(value):
        _check(child, item, (*path, index), found)


def _check_union(
    value: object, expected: inspect.UnionType, path: tuple[PathStep, ...], found: list[SchemaIssue]
) -> None:
    """The misfits of the first variant, when none fits. An optional field is no union: its type is the real one."""
    attempts: list[list[SchemaIssue]] = []
    for variant in expected.types:
        misfits: list[SchemaIssue] = []
        _check(value, variant, path, misfits)
        if not misfits:
            return
        attempts.append(misfits)
    found.extend(attempts[0])


def _scalar_misfit(value: object, expected: inspect.Type) -> str | None:
    match expected:
        case inspect.StrType():
            return _string_misfit(value, expected)
        case inspect.IntType():
            return _integer_misfit(value, expected)
        case inspect.FloatType():
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            return None if is_number else "must be number"
        case inspect.BoolType():
            return None if isinstance(value, bool) else "must be boolean"
        case inspect.NoneType():
            return None if value is None else "must be null"
        case inspect.LiteralType():
            return _choice_misfit(value, expected.values)
        case inspect.EnumType():
            return _choice_misfit(value, tuple(member.value for member in expected.cls))
        case _:
            raise AssertionError(f"input types do not use {expected!r}")


def _choice_misfit(value: object, allowed: tuple[object, ...]) -> str | None:
    # Compared with the type, because 1 == True.
    fits = any(type(value) is type(choice) and value == choice for choice in allowed)
    return None if fits else "must be equal to one of the allowed values"


def _string_misfit(value: object, expected: inspect.StrType) -> str | None:
    if not isinstance(value, str):
        return "must be string"
    if expected.min_length is not None and len(value) < expected.min_length:
        return f"must not have fewer than {expected.min_length} characters"
    if expected.max_length is not None and len(value) > expected.max_length:
        return f"must not have more than {expected.max_length} characters"
    return None


def _integer_misfit(value: object, expected: inspect.IntType) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
        return "must be integer"
    if expected.ge is not None and value < expected.ge:
        return f"must be >= {expected.ge}"
    if expected.le is not None and value > expected.le:
        return f"must be <= {expected.le}"
    return None


def first_fit(value: object, expected: type[Any]) -> Any:
    """`value` as `expected`.

    Raises:
        msgspec.ValidationError: it does not fit; `schema_issues` says why.
    """
    try:
        return msgspec.convert(value, expected)
    except msgspec.ValidationError:
        if schema_issues(value, expected):
            raise
        return msgspec.convert(with_integers(value), expected)
