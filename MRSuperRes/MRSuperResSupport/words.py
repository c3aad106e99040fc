"""`_`, which translates what people read: Slicer's own, or nothing outside of it."""

try:
    from slicer.i18n import tr as _
except ImportError:

    def _(text):
        return text


__all__ = ["_"]
