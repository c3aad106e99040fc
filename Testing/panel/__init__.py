"""The thinnest stand-ins for Slicer's application, so that the real panel runs with real MRML and Qt, without a window.

MRML, VTK and `slicer.util` are Slicer's own (slicer-core); Qt is PySide6 with properties as attributes, like PythonQt.
What is stood in for: `slicer.app`, `slicer.modules`, ctk and qMRML widgets, `ScriptedLoadableModule`, `slicer.i18n`
and `slicer.parameterNodeWrapper`.
"""
