"""What the panel remembers: its choices as enumerations, and the parameter node that is saved with the scene."""

import enum
from typing import Annotated

from slicer import vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper

from MRSuperResLib.terms import PROFILES

from .run import MAPS

RESULT_ROLE = "MRSuperRes.result"  # node reference of the parameter node to the last result, which the comparison shows
OUTPUTS = ("outputVolume", *MAPS)


class Task(enum.Enum):
    """What to do; the value is what models and jobs call it."""

    IN_PLANE = "in-plane"
    THROUGH_PLANE = "through-plane"
    GUIDED = "reference-guided"
    TRANSLATE = "translate"

    def label(self):
        """For people."""
        return {
            "in-plane": _("Super-resolve in plane"),
            "through-plane": _("Super-resolve through plane"),
            "reference-guided": _("Super-resolve, guided by a reference"),
            "translate": _("Translate to another contrast"),
        }[self.value]

    @property
    def kind(self):
        """The task of a model card and of a job."""
        return "super-resolve" if self in (Task.IN_PLANE, Task.THROUGH_PLANE) else self.value

    @property
    def plane(self):
        """The plane a job is asked for, None where the model decides."""
        return self.value if self in (Task.IN_PLANE, Task.THROUGH_PLANE) else None


class Contrast(enum.Enum):
    """The scan's weighting."""

    UNKNOWN = ""
    T1W = "T1w"
    T2W = "T2w"
    FLAIR = "FLAIR"
    PDW = "PDw"

    def label(self):
        """For people."""
        return self.value or _("Unknown")


class SizeMode(enum.Enum):
    """How the fineness of the result is asked for."""

    FACTOR = "factor"
    SPACING = "spacing"

    def label(self):
        """For people."""
        return _("By a factor") if self is SizeMode.FACTOR else _("To a voxel size")


class Device(enum.Enum):
    """Where to compute."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    MPS = "mps"

    def label(self):
        """For people."""
        return {
            "auto": _("Automatic"),
            "cpu": _("Processor (CPU)"),
            "cuda": _("NVIDIA GPU (CUDA)"),
            "mps": _("Apple GPU (MPS)"),
        }[self.value]


class Precision(enum.Enum):
    """Numbers to compute with."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"

    def label(self):
        """For people."""
        return {
            "auto": _("Automatic"),
            "fp32": _("Full (32 bit)"),
            "bf16": _("Half (bfloat16)"),
            "fp16": _("Half (float16)"),
        }[self.value]


class _Named(enum.Enum):
    """Words of the library's, which are names in the field: shown as they are, but for a capital."""

    def label(self):
        """For people."""
        return {"kspace": "k-space"}.get(self.value, self.value.capitalize())


Profile = _Named("Profile", {name.upper(): name for name in PROFILES})


@parameterNodeWrapper
class MRSuperResParameterNode:
    """Everything the panel remembers; saved and restored with the scene.

    offerAll: also models that were not made for the scan, after a warning. spacing: mm along the axes the task refines.
    followedFactor: the factor that a model brought, as long as it is `factor` nobody has edited it; factorFor: that model.
    settledFor: the input that contrast, reference and ground truth were chosen for. madeFrom, madeFor: the input that the
    outputs now chosen were made from, and how, see `OutputsView.subject`; "" if a run made none of them.
    """

    inputVolume: vtkMRMLScalarVolumeNode
    contrast: Contrast = Contrast.UNKNOWN
    settledFor: vtkMRMLScalarVolumeNode
    task: Task = Task.THROUGH_PLANE
    model: str = ""
    offerAll: bool = False
    sizeMode: SizeMode = SizeMode.FACTOR
    factor: Annotated[float, WithinRange(1.1, 16.0)] = 4.0
    followedFactor: float = 4.0
    factorFor: str = ""
    spacing: Annotated[float, WithinRange(0.1, 10.0)] = 1.0
    referenceVolume: vtkMRMLScalarVolumeNode
    register: bool = True
    target: str = ""
    samples: Annotated[int, WithinRange(1, 100)] = 8
    keepSamples: bool = True
    seed: Annotated[int, WithinRange(0, 999999)] = 0
    firstModel: str = ""
    truthVolume: vtkMRMLScalarVolumeNode
    outputVolume: vtkMRMLScalarVolumeNode
    errorMap: vtkMRMLScalarVolumeNode
    consistencyMap: vtkMRMLScalarVolumeNode
    uncertaintyMap: vtkMRMLScalarVolumeNode
    makeErrorMap: bool = True
    makeConsistencyMap: bool = False
    makeUncertaintyMap: bool = True
    device: Device = Device.AUTO
    precision: Precision = Precision.AUTO
    project: bool = False
    profile: Profile = Profile.GAUSSIAN
    madeFrom: vtkMRMLScalarVolumeNode
    madeFor: str = ""
