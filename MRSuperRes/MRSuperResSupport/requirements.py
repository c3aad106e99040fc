"""What the worker needs in Slicer's Python: looked for, and asked for, only when something is about to run.

Slicer's process never imports torch itself to find out: that takes seconds and locks files a repair would have to replace.
"""

import importlib.metadata
import subprocess

from MRSuperResLib.errors import MissingRequirement

from .words import _

SMALL = ("safetensors>=0.4", "einops>=0.7")  # what else the library uses, Slicer brings
TORCH = ">=2.4"
KEPT = ["torch", "numpy", "scipy", "SimpleITK", "vtk", "requests", "pydicom"]  # Slicer's own: never replaced


def ensure(entry):
    """Make sure that `entry` can run, asking the user before anything is installed.

    Interpolation needs nothing. Raises `MissingRequirement`: declined, failed, or no way to install here.
    """
    if entry.card.is_baseline:
        return
    missing = [text for text in SMALL if not _installed(text)]
    if missing:
        _ensureSmall(missing)
    if not _installed("torch" + TORCH):
        _ensureTorch()


def areMet():
    """Whether nothing is missing to run a network. Asks nothing, installs nothing."""
    return all(_installed(text) for text in (*SMALL, "torch" + TORCH))


def _installed(text):
    """Whether a requirement is met by what is installed, files included: half-removed packages do not count."""
    from packaging.requirements import Requirement

    requirement = Requirement(text)
    try:
        distribution = importlib.metadata.distribution(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return False
    if not requirement.specifier.contains(distribution.version, prereleases=True):
        return False
    package = distribution.locate_file(requirement.name.lower())
    return (package / "__init__.py").exists()


def _ensureSmall(missing):
    from packaging.requirements import Requirement

    names = " and ".join(missing)

    try:
        from slicer.packaging import pip_ensure
    except ImportError as error:
        raise MissingRequirement(
            _("{names} must be installed, and this Slicer cannot do it: use Slicer 5.12 or later").format(names=names)
        ) from error
    try:
        pip_ensure([Requirement(text) for text in missing], skip_packages=KEPT, requester="MRSuperRes")
    except RuntimeError as error:
        raise MissingRequirement(
            _("{names} were not installed; press Apply again to install them").format(names=names), code="declined"
        ) from error
    except subprocess.CalledProcessError as error:
        raise MissingRequirement(
            _("{names} could not be installed (pip ended with {code}): check the network, then try again").format(
                names=names, code=error.returncode
            )
        ) from error
    if not all(_installed(text) for text in missing):
        raise MissingRequirement(
            _("{names} are not installed: install them, or run outside of testing mode").format(names=names)
        )


def _ensureTorch():
    try:
        import PyTorchUtils
    except ImportError as error:
        raise MissingRequirement(
            _(
                "PyTorch is needed: install the PyTorch extension in the Extensions Manager, restart Slicer, and press Apply again"
            )
        ) from error
    try:
        torch = PyTorchUtils.PyTorchUtilsLogic().installTorch(askConfirmation=True, torchVersionRequirement=TORCH)
    except Exception as error:  # whatever pip, the network or a locked file brought up
        raise MissingRequirement(
            _("PyTorch could not be installed ({error}): see the module PyTorch Utils, or install it there").format(
                error=error
            )
        ) from error
    if torch is None:  # how it tells that the user declined
        text = _("PyTorch was not installed; press Apply again, or install it in the module PyTorch Utils")
        raise MissingRequirement(text, code="declined")
    if not _installed("torch" + TORCH):
        raise MissingRequirement(_("PyTorch is not complete: install it again in the module PyTorch Utils"))
