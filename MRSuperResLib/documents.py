"""Typed JSON: frozen dataclasses to JSON documents and back, every field checked, every complaint one line.

Model cards and jobs are both documents of this kind. A field's annotation is its schema: what does not fit it is
refused with the path of the field, what was found and what was expected.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

Document = TypeVar("Document")


class BadDocument(ValueError):
    """A JSON document that does not fit its type; the message is one line."""


def encode(value: Any) -> Any:
    """`value` (dataclasses, tuples, mappings, scalars) as plain JSON values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: encode(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [encode(item) for item in value]
    return value


def decode(kind: type[Document], value: Any, where: str = "") -> Document:
    """The `kind` (a dataclass) that the JSON value `value` describes.

    Unknown keys, missing keys and values of another type raise `BadDocument`; `where` is the path put before a field's
    name.
    """
    if not isinstance(value, Mapping):
        raise BadDocument(f"{where or 'the document'} is {_shown(value)}, expected an object with named fields")
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = [str(key) for key in value if key not in fields]
    if unknown:
        raise BadDocument(f"{_path(where, unknown[0])} is not a known field; {expected(unknown[0], fields)}")
    hints = typing.get_type_hints(kind)
    known: dict[str, Any] = {}
    for name, field in fields.items():
        if name in value:
            known[name] = _decode(hints[name], value[name], _path(where, name))
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise BadDocument(f"{_path(where, name)} is missing")
    return kind(**known)


def expected(name: str, known: Iterable[str]) -> str:
    """What could have been meant by `name`, in words: the nearest of `known`, if one is near, and all of them."""
    choices = list(known)
    near = difflib.get_close_matches(name, choices, n=1)
    return (f"did you mean {near[0]}? " if near else "") + f"expected {', '.join(choices)}"


def canonical(value: Any) -> bytes:
    """`value` as JSON bytes that depend on its content alone: sorted keys, no spaces, UTF-8."""
    return json.dumps(
        encode(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def _decode(kind: Any, value: Any, where: str) -> Any:
    origin = get_origin(kind)
    if kind is Any:
        return value
    if origin in (Union, types.UnionType):
        return _decode_optional(kind, value, where)
    if origin is Literal:
        if value not in get_args(kind) or isinstance(value, bool):
            choices = [str(choice) for choice in get_args(kind)]
            near = difflib.get_close_matches(str(value), choices, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise BadDocument(f"{where} is {_shown(value)}, {hint}expected one of {', '.join(choices)}")
        return value
    if origin is tuple:
        return _decode_tuple(get_args(kind), value, where)
    if origin in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise BadDocument(f"{where} is {_shown(value)}, expected an object")
        return {str(key): _decode(get_args(kind)[1], item, _path(where, str(key))) for key, item in value.items()}
    if dataclasses.is_dataclass(kind):
        return decode(typing.cast(type, kind), value, where)
    return _decode_scalar(kind, value, where)


def _decode_optional(kind: Any, value: Any, where: str) -> Any:
    choices = [choice for choice in get_args(kind) if choice is not type(None)]
    if value is None and len(choices) < len(get_args(kind)):
        return None
    return _decode(next((one for one in choices if _tagged(one, value)), choices[0]), value, where)


def _tagged(kind: Any, value: Any) -> bool:
    """Whether `kind` is a dataclass one of whose Literal fields of a single value has that value in `value`."""
    if not dataclasses.is_dataclass(kind) or not isinstance(value, Mapping):
        return False
    hints = typing.get_type_hints(kind)
    return any(get_origin(hint) is Literal and get_args(hint) == (value.get(name),) for name, hint in hints.items())


def _decode_tuple(kinds: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise BadDocument(f"{where} is {_shown(value)}, expected a list")
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        return tuple(_decode(kinds[0], item, f"{where}[{n}]") for n, item in enumerate(value))
    if len(kinds) != len(value):
        raise BadDocument(f"{where} has {len(value)} values, expected {len(kinds)}")
    return tuple(_decode(kind, item, f"{where}[{n}]") for n, (kind, item) in enumerate(zip(kinds, value, strict=True)))


def _decode_scalar(kind: type, value: Any, where: str) -> Any:
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise BadDocument(f"{where} is {_shown(value)}, expected a finite number")
        return number
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        names = {float: "a number", int: "a whole number", str: "text", bool: "true or false"}
        raise BadDocument(f"{where} is {_shown(value)}, expected {names.get(kind, kind.__name__)}")
    return value


def _path(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
