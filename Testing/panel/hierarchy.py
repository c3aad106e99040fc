"""The Data module's tree, as far as scripted plugins of its context menu see it."""

from __future__ import annotations

import importlib.util
import types
from pathlib import Path
from typing import Any

import slicer

from . import widgets

PLUGINS: dict[str, Any] = {}


class qSlicerSubjectHierarchyPluginHandler:
    """The one handler: knows the plugins by name. No item is current where several are selected."""

    @classmethod
    def instance(cls) -> type[qSlicerSubjectHierarchyPluginHandler]:
        return cls

    @classmethod
    def registerPlugin(cls, plugin: Any) -> bool:
        PLUGINS[plugin.name] = plugin
        return True

    @classmethod
    def pluginByName(cls, name: str) -> Any:
        return PLUGINS.get(name)

    @classmethod
    def currentItem(cls) -> int:
        return 0


class qSlicerSubjectHierarchyScriptedPlugin(widgets.QtCore.QObject):
    """Loads a class of a Python file whose name is the file's, as Slicer does."""

    name = ""

    def setPythonSource(self, path: str) -> bool:
        from shibokensupport.feature import pyside_feature_dict

        name = Path(path).stem
        assert name.endswith("SubjectHierarchyPlugin"), "Slicer would look for another class"
        pyside_feature_dict[name] = 2  # true_property
        specification = importlib.util.spec_from_file_location(name, path)
        assert specification is not None and specification.loader is not None
        module = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(module)
        self.plugin = getattr(module, name)(self)
        setattr(slicer, name, self.plugin)
        return True


class AbstractScriptedSubjectHierarchyPlugin:
    """Registers the adaptor, as Slicer's own does."""

    def __init__(self, scriptedPlugin: Any) -> None:
        self.scriptedPlugin = scriptedPlugin
        qSlicerSubjectHierarchyPluginHandler.instance().registerPlugin(scriptedPlugin)


def modules() -> dict[str, types.ModuleType]:
    """The module `SubjectHierarchyPlugins`; Slicer's classes go into `slicer`."""
    slicer.qSlicerSubjectHierarchyPluginHandler = qSlicerSubjectHierarchyPluginHandler
    slicer.qSlicerSubjectHierarchyScriptedPlugin = qSlicerSubjectHierarchyScriptedPlugin
    module = types.ModuleType("SubjectHierarchyPlugins")
    module.AbstractScriptedSubjectHierarchyPlugin = AbstractScriptedSubjectHierarchyPlugin
    return {"SubjectHierarchyPlugins": module}
