"""What can go wrong, as few types: each says what was found, what was expected and what to do, in one line.

`code` is stable (scripts and the panel compare it); `exit_code` is the process exit status of `mrsuperres`:
0 done, 2 wrong use of the command line, 3 unsuitable input, 4 unsuitable model, 5 output cannot be written,
6 device or memory, 7 a missing requirement, 130 cancelled, 1 anything else (a bug: please report it).
"""

from __future__ import annotations


class MRSuperResError(Exception):
    """Base of every error a user can cause or mend."""

    code = "error"
    exit_code = 1

    def __init__(self, message: str, *, code: str | None = None) -> None:
        """`message` is one line for people; `code` narrows the class's own, e.g. "empty-volume"."""
        super().__init__(message)
        if code is not None:
            self.code = code

    @property
    def message(self) -> str:
        """The line for people."""
        return str(self.args[0])


def told(error: OSError) -> str:
    """What the system refused, in one line: the file, if it is known, and why."""
    reason = error.strerror or " ".join(str(error).split()) or type(error).__name__
    return f"{error.filename}: {reason}" if error.filename is not None else reason


class UsageError(MRSuperResError):
    """The request contradicts itself or names something that does not exist."""

    code = "usage"
    exit_code = 2


class BadVolume(MRSuperResError):
    """The input cannot be read or is not a 3D scalar volume."""

    code = "bad-volume"
    exit_code = 3


class UnsuitableVolume(MRSuperResError):
    """The volume is sound, but the model or the request cannot be applied to it."""

    code = "unsuitable-volume"
    exit_code = 3


class ModelError(MRSuperResError):
    """The model is unknown, damaged, tampered with, or made for another task."""

    code = "model"
    exit_code = 4


class OutputError(MRSuperResError):
    """The result cannot be written where it was asked for."""

    code = "output"
    exit_code = 5


class DeviceError(MRSuperResError):
    """The device asked for is absent, failed, or has too little memory even for the smallest tile."""

    code = "device"
    exit_code = 6


class MissingRequirement(MRSuperResError):
    """A package or a weights file that this step needs is not there."""

    code = "missing-requirement"
    exit_code = 7


class Cancelled(MRSuperResError):
    """The user stopped the work; nothing was written."""

    code = "cancelled"
    exit_code = 130
