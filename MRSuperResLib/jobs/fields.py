"""What is said about a field once, where it is defined: its help, choices and range; and what is derived from that.

`described` defines a field of a frozen dataclass, `fields_of` lists them for whoever draws arguments or widgets from
them, `complaints` checks values, `json_schema` prints the schema.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

JSON_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean"}


@dataclass(frozen=True)
class Field:
    """One field of a request.

    name: in JSON and in Python. kind: str, int, float or bool, of the value or of each of several. count: None for one
    value, a number for that many, 0 for any number. optional: None is allowed and means that the program chooses, or
    that nothing is made. choices: the values allowed, () for any. at_least, at_most, above: the range of numbers.
    tasks: the tasks it is for, () for all. role: "input" or "output" for the path of a file or folder, "model" for a
    model's id or path, "how" for what shapes no result (device, memory, files), else "". flags: of the shell, the
    first is its usual one; () for none. off: the shell's help of a flag that turns off what is on by default. metavar: its
    value in the shell's help. aliases: other spellings of choices.
    """

    name: str
    kind: type
    count: int | None
    optional: bool
    required: bool
    default: Any
    help: str
    choices: tuple[Any, ...] = ()
    at_least: float | None = None
    at_most: float | None = None
    above: float | None = None
    tasks: tuple[str, ...] = ()
    role: str = ""
    flags: tuple[str, ...] = ()
    off: str = ""
    metavar: str | tuple[str, ...] | None = None
    aliases: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def words(self) -> str:
        """The name for people."""
        return self.name.replace("_", " ")


def described(help: str, default: Any = dataclasses.MISSING, **more: Any) -> Any:
    """A dataclass field that carries what `Field` says about it; flags: by default one after its name, () for none."""
    return dataclasses.field(default=default, metadata={"help": help, **more})


def fields_of(kind: type) -> tuple[Field, ...]:
    """The described fields of the dataclass `kind`, in order."""
    hints = typing.get_type_hints(kind)
    return tuple(_field(field, hints[field.name]) for field in dataclasses.fields(kind) if "help" in field.metadata)


def complaints(value: Any, fields: Iterable[Field]) -> Iterator[str]:
    """What is out of range in `value`, one line for each field."""
    for field in fields:
        held = getattr(value, field.name)
        if held is None:
            if not field.optional:
                yield f"{field.name} is missing"
            continue
        several = field.count is not None
        wrong = next((line for one in (held if several else (held,)) if (line := _expected(field, one))), None)
        if wrong:
            shown = f"{held:g}" if isinstance(held, float) else held
            yield f"{field.name} is {shown}, expected {wrong}"


def json_schema(kind: type, title: str, description: str) -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of the dataclass `kind`."""
    fields = fields_of(kind)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        "description": description,
        "type": "object",
        "properties": {field.name: _property(field) for field in fields},
        "required": [field.name for field in fields if field.required],
        "additionalProperties": False,
    }


def _field(field: dataclasses.Field[Any], hint: Any) -> Field:
    optional = get_origin(hint) in (Union, types.UnionType) and type(None) in get_args(hint)
    if optional:
        hint = next(choice for choice in get_args(hint) if choice is not type(None))
    count = None
    if get_origin(hint) is tuple:
        inside = get_args(hint)
        count = 0 if inside[-1] is Ellipsis else len(inside)
        hint = inside[0]
    choices: tuple[Any, ...] = ()
    if get_origin(hint) is Literal:
        choices = get_args(hint)
        hint = type(choices[0])
    more: dict[str, Any] = {"choices": choices, "flags": (f"--{field.name.replace('_', '-')}",), **field.metadata}
    required = field.default is dataclasses.MISSING
    default = None if required else field.default
    return Field(field.name, hint, count, optional, required, default, **more)


def _expected(field: Field, value: Any) -> str | None:
    """What `value` should have been; None if it is all right."""
    if field.choices and value not in field.choices:
        *some, last = (str(choice) for choice in field.choices)
        return f"{', '.join(some)} or {last}"
    if isinstance(value, (str, bool)):
        return None
    if field.above == 0 and not value > 0:
        return "positive numbers" if field.count else "a positive number"
    if field.above is not None and not value > field.above:
        return f"more than {field.above:g}"
    if field.at_least is not None and value < field.at_least:
        return f"at least {field.at_least:g}"
    if field.at_most is not None and value > field.at_most:
        return f"at most {field.at_most:.15g}"
    return "a finite number" if isinstance(value, float) and not math.isfinite(value) else None


def _property(field: Field) -> dict[str, Any]:
    one: dict[str, Any] = {"type": JSON_TYPES[field.kind]}
    if field.choices:
        one["enum"] = list(field.choices)
    for name, limit in (("minimum", field.at_least), ("maximum", field.at_most), ("exclusiveMinimum", field.above)):
        if limit is not None:
            one[name] = limit
    if field.required and field.kind is str:
        one["pattern"] = r"\S"
    made = one
    if field.count is not None:
        made = {"type": "array", "items": one}
        made |= {"minItems": field.count, "maxItems": field.count} if field.count else {}
    if field.optional:
        made = {"anyOf": [made, {"type": "null"}]}
    made["description"] = field.help
    if not field.required:
        made["default"] = list(field.default) if isinstance(field.default, tuple) else field.default
    return made
