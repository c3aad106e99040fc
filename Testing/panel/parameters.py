"""`slicer.parameterNodeWrapper`, for the field types and widgets the panel uses, as strict as Slicer's.

Values go into the same parameters and node references of the same MRML node, so that a scene saved here means the same
there. Cached node values are not renewed when the node is deleted: Slicer's are not, and the panel must cope.
"""

from __future__ import annotations

import enum
import types
import typing
from collections.abc import Callable
from typing import Any

import slicer
import vtk

from . import widgets
from .widgets import QtWidgets, ctkSliderWidget, qMRMLNodeComboBox


class WithinRange:
    """A number must be between two others."""

    def __init__(self, minimum: float, maximum: float) -> None:
        self.minimum, self.maximum = minimum, maximum


class Field:
    """One field: how it is written to a parameter node and read from it."""

    def __init__(self, name: str, annotated: Any, default: Any) -> None:
        self.name = name
        self.type = typing.get_args(annotated)[0] if typing.get_origin(annotated) is typing.Annotated else annotated
        self.range = next((m for m in getattr(annotated, "__metadata__", ()) if isinstance(m, WithinRange)), None)
        self.isNode = isinstance(self.type, type) and issubclass(self.type, slicer.vtkMRMLNode)
        self.default = default if default is not None or self.isNode else self.type()

    def check(self, value: Any) -> None:
        allowed: Any = (int, float) if self.type is float else self.type
        if not (self.isNode and value is None) and not isinstance(value, allowed):
            raise TypeError(f"{self.name}: {value!r} is no {self.type}")
        if self.range and not self.range.minimum <= value <= self.range.maximum:
            raise ValueError(f"{self.name}: {value} is out of range")

    def write(self, node: Any, value: Any) -> None:
        self.check(value)
        if self.isNode:
            node.SetParameter(self.name, "")
            node.SetNodeReferenceID(self.name, value.GetID() if value is not None else None)
        elif isinstance(value, enum.Enum):
            node.SetParameter(self.name, value.name)
        else:
            node.SetParameter(self.name, str(value))

    def read(self, node: Any) -> Any:
        if not node.HasParameter(self.name):
            self.write(node, self.default)
        if self.isNode:
            return node.GetNodeReference(self.name)
        text = node.GetParameter(self.name)
        if self.type is bool:
            return text == "True"
        return self.type[text] if issubclass(self.type, enum.Enum) else self.type(text)


def _bound(field: Field, widget: Any) -> tuple[Any, Callable[[], Any], Callable[[Any], None]]:
    """(signal, read, write) of `widget` for `field`, for the pairs Slicer 5.12 connects; others are refused."""
    kind = type(widget)
    if field.type is bool and kind is QtWidgets.QCheckBox:
        return widget.stateChanged, lambda: widget.property("checked"), lambda v: widget.setProperty("checked", v)
    if field.type is str and kind is QtWidgets.QLineEdit:
        return widget.textChanged, lambda: widget.property("text"), lambda v: widget.setProperty("text", v)
    if (field.type is int and kind is QtWidgets.QSpinBox) or (
        field.type is float and kind in (QtWidgets.QDoubleSpinBox, ctkSliderWidget)
    ):
        assert field.range is not None, f"{field.name}: an unbounded number would lift the widget's limits"
        widget.setProperty("minimum", field.range.minimum)
        widget.setProperty("maximum", field.range.maximum)
        return widget.valueChanged, lambda: widget.property("value"), lambda v: widget.setProperty("value", v)
    if isinstance(field.type, type) and issubclass(field.type, enum.Enum) and kind is QtWidgets.QComboBox:
        members = list(field.type)
        widget.clear()
        widget.addItems([field.type.label(member) for member in members])

        def write(value: Any) -> None:
            widget.setProperty("currentIndex", members.index(value))

        return widget.currentIndexChanged, lambda: members[widget.property("currentIndex")], write
    if field.isNode and kind is qMRMLNodeComboBox:
        widget.setProperty("nodeTypes", [field.type.__name__])
        return widget.currentNodeChanged, widget.currentNode, widget.setCurrentNode
    raise RuntimeError(f"Unable to create GUI connector from datatype '{field.type}' to widget type '{kind}'")


def parameterNodeWrapper(cls: type) -> type:
    """Make the annotated fields of `cls` properties that live in a parameter node."""
    hints = typing.get_type_hints(cls, include_extras=True)
    fields = {name: Field(name, hint, getattr(cls, name, None)) for name, hint in hints.items()}

    def construct(self: Any, parameterNode: Any) -> None:
        self.parameterNode = parameterNode
        self._guis, self._updating = {}, False
        self._values = {name: field.read(parameterNode) for name, field in fields.items()}
        parameterNode.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: _reread(self))

    def _reread(self: Any) -> None:
        self._values = {name: field.read(self.parameterNode) for name, field in fields.items()}
        if self._updating:
            return
        self._updating = True
        try:
            for bindings in self._guis.values():
                for name, (_, _, write) in bindings.items():
                    write(self._values[name])
        finally:
            self._updating = False

    def setValue(self: Any, name: str, value: Any) -> None:
        with slicer.util.NodeModify(self.parameterNode):
            fields[name].write(self.parameterNode, value)
            self._values[name] = fields[name].read(self.parameterNode)

    def connectParametersToGui(self: Any, mapping: dict[str, Any]) -> int:
        unknown = set(mapping) - set(fields)
        if unknown:
            raise ValueError(f"Cannot find a param with the given name: {unknown}")
        tag = len(self._guis)
        self._guis[tag] = bindings = {}
        for name, widget in mapping.items():
            signal, read, write = _bound(fields[name], widget)
            write(self._values[name])

            def changed(*_: Any, name: str = name, read: Callable[[], Any] = read) -> None:
                if not self._updating and tag in self._guis:
                    setValue(self, name, read())

            signal.connect(changed)
            bindings[name] = (changed, read, write)
        return tag

    cls.__init__ = construct
    cls.allParameters = fields
    cls.setValue = setValue
    cls.connectParametersToGui = connectParametersToGui
    cls.disconnectGui = lambda self, tag: self._guis.pop(tag, None)
    for name in fields:
        setattr(
            cls,
            name,
            property(lambda self, n=name: self._values[n], lambda self, value, n=name: setValue(self, n, value)),
        )
    return cls


def modules() -> dict[str, types.ModuleType]:
    """The module `slicer.parameterNodeWrapper`."""
    module = types.ModuleType("slicer.parameterNodeWrapper")
    module.parameterNodeWrapper, module.WithinRange = parameterNodeWrapper, WithinRange
    return {"slicer.parameterNodeWrapper": module}


assert widgets
