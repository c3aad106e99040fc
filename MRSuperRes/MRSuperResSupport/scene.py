"""The MRML scene in and out: a node as a file in world space, a result beside its source.

Slicer's nodes lie in RAS, the library's grids in LPS. Input nodes are read, never changed.
"""

import json
import math
import re
from pathlib import Path

import numpy as np
import slicer
import vtk

from MRSuperResLib.contrasts import DESCRIPTIONS, guess_contrast, spelt
from MRSuperResLib.errors import BadVolume
from MRSuperResLib.grid import Grid
from MRSuperResLib.inference.planning import slice_axis_for
from MRSuperResLib.io.read import load_volume
from MRSuperResLib.io.sidecar import path_beside, thickness_of
from MRSuperResLib.io.write import write_volume
from MRSuperResLib.subject import body_part
from MRSuperResLib.volume import Volume, check_volume

from .words import _

COMPARING_VIEWS = ("MRSuperResInput", "MRSuperResResult", "MRSuperResMap")  # slice views of our own
VOLUME_CLASS = "vtkMRMLScalarVolumeNode"
ATTRIBUTE = "MRSuperRes."
GREY = "vtkMRMLColorTableNodeGrey"
SEQUENTIAL = "vtkMRMLColorTableNodeFileInferno.txt"  # black over violet and orange to pale yellow, even in lightness
DIVERGING = "vtkMRMLColorTableNodeFileDivergingBlueRed.txt"  # blue over white to red
SEEN_AGAIN = ("large-volume", "odd-spacing")  # codes of warnings
MAP_PERCENTILE = 99.5  # a few wild voxels must not wash the map out
TOLD = {  # of the scan and the patient, by DICOM's names, which BIDS sidecars have too
    "Modality": "0008,0060",
    "BodyPartExamined": "0018,0015",
    "PatientAge": "0010,1010",
    "SliceThickness": "0018,0050",
    "SeriesDescription": "0008,103e",
    "ProtocolName": "0018,1030",
}
NAMELESS = ("Modality", "PatientAge", "SliceThickness")  # those of them that nobody writes a patient's name into
RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def refusal(node):
    """Why `node` cannot be worked on, in one line; "" if it can. Looks at the node alone, not at its voxels."""
    if node is None:
        return _("No volume is selected.")
    name = node.GetName()
    if node.IsA("vtkMRMLSegmentationNode") or node.IsA("vtkMRMLLabelMapVolumeNode"):
        return _("{name} is a segmentation: choose the MR volume it was drawn on.").format(name=name)
    if not node.IsA(VOLUME_CLASS):
        return _("{name} is no volume.").format(name=name)
    image = node.GetImageData()
    if image is None or image.GetNumberOfPoints() == 0 or image.GetPointData().GetScalars() is None:
        return _("{name} has no voxels: load or acquire it first.").format(name=name)
    values = image.GetNumberOfScalarComponents()
    if values != 1:
        text = _("{name} has {count} values in each voxel (colour or vectors), not one intensity.")
        return text.format(name=name, count=values)
    if min(image.GetDimensions()) < 2:
        size = " x ".join(map(str, image.GetDimensions()))
        return _("{name} is {size} voxels, a single slice: choose a whole volume.").format(name=name, size=size)
    transform = node.GetParentTransformNode()
    if transform is not None and not transform.IsTransformToWorldLinear():
        return _(
            "{name} is under a non-linear transform: harden it first (Transforms module), which resamples the volume."
        ).format(name=name)
    try:
        gridOf(node)
    except BadVolume as error:
        return f"{name}: {error.message}"
    return ""


def glanceOf(node):
    """The node as the library's volume to look at: its own voxels, not copied, and what DICOM tells of scan and patient.

    Raises `BadVolume` with the reason if it cannot be one.
    """
    reason = refusal(node)
    if reason:
        raise BadVolume(reason, code="bad-node")
    return Volume(slicer.util.arrayFromVolume(node), gridOf(node), node.GetName(), toldOf(node), thicknessOf(node))


def toldOf(node):
    """What the DICOM database tells of the node, and what the file told that it was read from: {name: text}, see `TOLD`."""
    told = {name: next(iter(_dicomTexts(node, tag)), "") for name, tag in TOLD.items()}
    return json.loads(node.GetAttribute(ATTRIBUTE + "told") or "{}") | {
        name: text for name, text in told.items() if text
    }


def keepTold(node, volume):
    """Keep with `node` what the file of `volume`, which it holds, told of scan and patient."""
    told = {name: volume.metadata[name] for name in TOLD if volume.metadata.get(name)}
    if volume.thickness is not None:
        told["SliceThickness"] = str(volume.thickness)
    node.SetAttribute(ATTRIBUTE + "told", json.dumps(told))


def thicknessOf(node):
    """Slice thickness in mm, where it is known; None elsewhere."""
    return thickness_of(toldOf(node))


def worldMatrix(node):
    """4x4, continuous index i, j, k -> RAS mm, parent transforms included."""
    indexToRAS, toWorld, product = vtk.vtkMatrix4x4(), vtk.vtkMatrix4x4(), vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(indexToRAS)
    transform = node.GetParentTransformNode()
    if transform is not None:
        transform.GetMatrixTransformToWorld(toWorld)
    vtk.vtkMatrix4x4.Multiply4x4(toWorld, indexToRAS, product)
    return np.array([[product.GetElement(row, column) for column in range(4)] for row in range(4)])


def gridOf(node):
    """The node's grid in the world, LPS. Raises `BadVolume` where its axes are not at right angles there."""
    matrix = RAS_TO_LPS @ worldMatrix(node)
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    direction = matrix[:3, :3] / np.where(spacing > 0, spacing, 1.0)
    return Grid(
        size=tuple(int(n) for n in node.GetImageData().GetDimensions()),
        spacing=tuple(spacing.tolist()),
        origin=tuple(matrix[:3, 3].tolist()),
        direction=tuple(direction.ravel().tolist()),
    )


def refinedSpacing(node, plane, length):
    """mm along i, j, k of a result: `length` along the axes that `plane` refines, the node's own along the others."""
    grid = gridOf(node)
    sliced, through = slice_axis_for(grid, plane=plane), plane == "through-plane"
    return tuple(float(length) if (axis == sliced) == through else own for axis, own in enumerate(grid.spacing))


def volumeOf(node):
    """The node as the library's volume, in the world. Raises `BadVolume` with the reason if it cannot be one."""
    reason = refusal(node)
    if reason:
        raise BadVolume(reason, code="bad-node")
    array = np.ascontiguousarray(slicer.util.arrayFromVolume(node), dtype=np.float32)
    return Volume(array, gridOf(node), node.GetName())


def export(node, path, warn=None):
    """Write the node, in world space, to the file `path` (NRRD), without its name: file names reach logs.

    warn(code, message) hears what had to be mended for it.
    """
    write_volume(check_volume(volumeOf(node), mended(warn)), path)


def mended(warn):
    """`warn`, without what the worker, which sees the same grid, warns of again."""
    return lambda code, message: warn(code, message) if warn is not None and code not in SEEN_AGAIN else None


def tell(node, path):
    """Write what is known of the node's scan and patient beside the file `path` of it, as BIDS does, but no names."""
    told = {name: text for name, text in toldOf(node).items() if name in NAMELESS}
    part = body_part(glanceOf(node))  # which the node's name may tell
    if part is not None:
        told["BodyPartExamined"] = part.upper()
    if told:
        path_beside(path).write_text(json.dumps(told), encoding="utf-8")


def load(path):
    """(array (k, j, i) float32, grid) of a result; nothing is checked, because a map may well be constant."""
    volume = load_volume(path)
    return volume.array, volume.grid


def fill(node, array, grid):
    """Give `node` these voxels on this grid; it leaves any parent transform, since the grid is in the world."""
    matrix = np.eye(4)
    matrix[:3, :3] = grid.axes * np.asarray(grid.spacing)
    matrix[:3, 3] = grid.origin
    matrix = RAS_TO_LPS @ matrix
    indexToRAS = vtk.vtkMatrix4x4()
    for row in range(4):
        for column in range(4):
            indexToRAS.SetElement(row, column, float(matrix[row, column]))
    wasModifying = node.StartModify()
    try:
        node.SetAndObserveTransformNodeID(None)
        node.SetIJKToRASMatrix(indexToRAS)
        slicer.util.updateVolumeFromArray(node, array)
    finally:
        node.EndModify(wasModifying)


def create(name, kind=VOLUME_CLASS):
    """A new node, by default a volume; names are made unique as Slicer does."""
    scene = slicer.mrmlScene
    return scene.AddNewNodeByClass(kind, scene.GenerateUniqueName(name))


def resultName(source, modelId, factor=None, target="", firstModel=""):
    """What a result is called: "T2 thick SR x4 (rdst-e)", or "T1 scan as T2w (mtsr-mt)".

    After `firstModel` as if each step had been a run: "T1 scan SR x4 (rdst-e) as T2w (mtsr-mt)".
    """
    short = re.sub(r"-(in-?plane|through(-plane)?|x\d+(\.\d+)?)(?=-|$)", "", modelId)
    if target:
        source = resultName(source, firstModel, factor) if firstModel else source
        return f"{source} as {spelt(target)} ({short})"
    return f"{source} SR" + (f" x{factor:.3g}" if factor else "") + f" ({short})"


def show(node, source=None):
    """Display nodes for `node`; with `source`, its window and level, grey scale and units."""
    node.CreateDefaultDisplayNodes()
    display, like = node.GetDisplayNode(), source.GetDisplayNode() if source else None
    if display is None:
        return
    if source is not None:
        node.SetVoxelValueQuantity(source.GetVoxelValueQuantity())
        node.SetVoxelValueUnits(source.GetVoxelValueUnits())
    if like is not None and like.IsA("vtkMRMLScalarVolumeDisplayNode"):
        display.SetAutoWindowLevel(False)
        display.SetWindowLevel(like.GetWindow(), like.GetLevel())
        display.SetAndObserveColorNodeID(like.GetColorNodeID() or GREY)
    else:
        display.SetAndObserveColorNodeID(GREY)
        display.SetAutoWindowLevel(True)


def colourTable(signed):
    """ID of the colours for signed or for positive maps: tables of Slicer's own in which equal steps look equally large."""
    for identity in (DIVERGING if signed else SEQUENTIAL, GREY):  # grey where an application has no others
        if slicer.mrmlScene.GetNodeByID(identity) is not None:
            return identity
    return None


def colourRange(values, signed):
    """(lowest, highest) of a map's colours: zero at the bottom, or in the middle of a signed map."""
    finite = np.abs(values[np.isfinite(values)])
    top = float(np.percentile(finite, MAP_PERCENTILE)) if finite.size else 0.0
    top = top or (float(finite.max()) if finite.size else 0.0) or 1.0
    top = _rounded(top)
    return (-top if signed else 0.0), top


def _rounded(value):
    """`value` up to the next number of two digits, of which the second is even.

    Window and level are then short numbers: kept as text with a scene they still end at zero, not at -5e-05.
    """
    step = 2 * 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.ceil(round(value / step, 6)) * step:.2g}")


def colourMap(node, signed=False):
    """Show the map `node` in colours whose steps are equally visible, with zero where it belongs."""
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    low, high = colourRange(slicer.util.arrayFromVolume(node), signed)
    display.SetAndObserveColorNodeID(colourTable(signed))
    display.AutoWindowLevelOff()
    display.SetWindowLevelMinMax(low, high)
    display.SetInterpolate(False)


def placeBeside(node, source):
    """Put `node` under the parent of `source` in the subject hierarchy: the same study and folder."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    if hierarchy is None:
        return
    invalid = slicer.vtkMRMLSubjectHierarchyNode.GetInvalidItemID()
    item = hierarchy.GetItemByDataNode(source)
    parent = hierarchy.GetItemParent(item) if item != invalid else hierarchy.GetSceneItemID()
    own = hierarchy.GetItemByDataNode(node)
    if own == invalid:
        hierarchy.CreateItem(parent, node)
    else:
        hierarchy.SetItemParent(own, parent)


def record(node, role, source, provenance=None, metrics=None):
    """Keep what `node` is and where it came from, with the scene.

    role: "result", "sample" or the name of a map. metrics: scores of a result against the ground truth.
    """
    node.SetAttribute(ATTRIBUTE + "role", role)
    node.SetNodeReferenceID(ATTRIBUTE + "source", source.GetID())
    for key, value in (provenance or {}).items():
        node.SetAttribute(ATTRIBUTE + key, value if isinstance(value, str) else json.dumps(value))
    node.SetAttribute(ATTRIBUTE + "metrics", json.dumps(metrics) if metrics else None)


def roleOf(node):
    """What a run of ours made the node as (see `record`), "" if none did."""
    return node.GetAttribute(ATTRIBUTE + "role") or ""


def sourceOf(node):
    """The volume that a result, map or sample was made from, None if it left the scene or there was none."""
    return node.GetNodeReference(ATTRIBUTE + "source")


def metricsOf(result):
    """Scores of a result, {} without a ground truth."""
    return json.loads(result.GetAttribute(ATTRIBUTE + "metrics") or "{}")


def resultsOf(source):
    """The results made from `source` that still are in the scene, the latest last."""
    found = [
        node
        for node in slicer.util.getNodesByClass(VOLUME_CLASS)
        if roleOf(node) == "result" and sourceOf(node) is source
    ]
    return sorted(found, key=lambda node: node.GetAttribute(ATTRIBUTE + "created") or "")


def volumes():
    """Volumes that may be worked on, in the order they came into the scene: no maps, no samples, no results."""
    return [
        node
        for node in slicer.util.getNodesByClass(VOLUME_CLASS)  # label maps and colour volumes are of derived classes
        if node.GetClassName() == VOLUME_CLASS and not node.GetHideFromEditors() and not roleOf(node)
    ]


def shownVolume():
    """The background volume of the first slice view that shows one."""
    manager = slicer.app.layoutManager()
    for name in manager.sliceViewNames() if manager is not None else ():
        if name in COMPARING_VIEWS:
            continue
        widget = manager.sliceWidget(name)
        identity = widget.mrmlSliceCompositeNode().GetBackgroundVolumeID() if widget is not None else None
        node = slicer.mrmlScene.GetNodeByID(identity) if identity else None
        if node is not None:
            return node
    return None


def showInViews(background, fit=False, **layers):
    """`slicer.util.setSliceViewerLayers` for all slice views but those that compare.

    layers: "foreground", a node or None, and its "opacity". Views that nobody sees would keep eyes open in the Data tree.
    """
    for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
        if composite.GetLayoutName() in COMPARING_VIEWS:
            continue
        composite.SetBackgroundVolumeID(background.GetID())
        if "foreground" in layers:
            composite.SetForegroundVolumeID(layers["foreground"].GetID() if layers["foreground"] is not None else None)
        if "opacity" in layers:
            composite.SetForegroundOpacity(layers["opacity"])
    manager = slicer.app.layoutManager() if fit else None
    for name in manager.sliceViewNames() if manager is not None else ():
        if name not in COMPARING_VIEWS:
            manager.sliceWidget(name).sliceLogic().FitSliceToAll()


def selectedVolume():
    """The volume selected in the Data module's tree."""
    handler = getattr(slicer, "qSlicerSubjectHierarchyPluginHandler", None)
    item = handler.instance().currentItem() if handler is not None else 0
    return _dataOf(item) if item else None


def accompanying():
    """Maps and samples of the scene, which are nobody's input; results may be."""
    nodes = slicer.util.getNodesByClass(VOLUME_CLASS)
    return [node for node in nodes if roleOf(node) not in ("", "result")]


def attach(result, role, nodes):
    """Let `result` refer to `nodes`, which were made with it: "sample", or the name of a map. Saved with the scene."""
    result.RemoveNodeReferenceIDs(ATTRIBUTE + role)
    for node in nodes:
        result.AddNodeReferenceID(ATTRIBUTE + role, node.GetID())


def attached(result, role):
    """The nodes of that role that still are in the scene."""
    role = ATTRIBUTE + role
    nodes = [result.GetNthNodeReference(role, number) for number in range(result.GetNumberOfNodeReferences(role))]
    return [node for node in nodes if node is not None]


def guessContrast(node):
    """T1w, T2w, FLAIR, PDw or "": what it was translated to, else what its name or its DICOM fields tell."""
    if node is None:
        return ""
    made = json.loads(node.GetAttribute(ATTRIBUTE + "parameters") or "{}")
    if made.get("target"):
        return made["target"]
    told = toldOf(node)
    for text in (node.GetName() or "", *_dicomTexts(node), *(told.get(name, "") for name in DESCRIPTIONS)):
        guess = guess_contrast(text)
        if guess:
            return guess
    return ""


def _dicomTexts(node, *tags):
    """What the DICOM database knows of the node's first instance: these tags, by default series description and friends."""
    uids = (node.GetAttribute("DICOM.instanceUIDs") or "").split()
    database = getattr(slicer, "dicomDatabase", None)
    if not uids or database is None or not database.isOpen:
        return []
    return [
        text
        for text in (database.instanceValue(uids[0], tag) for tag in tags or ("0008,103e", "0018,1030", "0018,0024"))
        if text
    ]


def itemsOf(item):
    """The volume nodes below a subject-hierarchy item (a number), in its order; results of earlier runs are left out."""
    return [
        node
        for node in (_dataOf(child) for child in slicer.util.getSubjectHierarchyItemChildren(item, recursive=True))
        if node is not None
        and node.GetClassName() == VOLUME_CLASS
        and not node.GetHideFromEditors()
        and not roleOf(node)
    ]


def isWork(item):
    """Whether a subject-hierarchy item (a number) is a volume to work on, or has one below it."""
    node = _dataOf(item)
    if node is not None and node.IsA("vtkMRMLVolumeNode"):
        return node.GetClassName() == VOLUME_CLASS and roleOf(node) in ("", "result")
    return bool(itemsOf(item))


def describeAsSeries(node, source):
    """Tell the subject hierarchy what Slicer's own DICOM export should write for `node`: an MR series of the source's study.

    Study and patient are those of the items above, which `placeBeside` has made the source's.
    """
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    if hierarchy is None:
        return
    names = slicer.vtkMRMLSubjectHierarchyConstants
    item, origin = hierarchy.GetItemByDataNode(node), hierarchy.GetItemByDataNode(source)
    modality, frame = names.GetDICOMSeriesModalityAttributeName(), names.GetDICOMFrameOfReferenceUIDAttributeName()
    hierarchy.SetItemAttribute(item, modality, hierarchy.GetItemAttribute(origin, modality) or "MR")
    hierarchy.SetItemAttribute(item, names.GetDICOMAttributePrefix() + "SeriesDescription", node.GetName())
    known = hierarchy.GetItemAttribute(origin, frame)
    for name in (frame, names.GetDICOMAttributePrefix() + "FrameOfReferenceInstanceUID"):  # as the exporter calls it
        if known:
            hierarchy.SetItemAttribute(item, name, known)
    study = hierarchy.GetItemParent(item)
    kept, identity = names.GetDICOMAttributePrefix() + "StudyInstanceUID", ""
    if hierarchy.GetItemLevel(study) == names.GetDICOMLevelStudy():
        identity = hierarchy.GetItemUID(study, names.GetDICOMUIDName())
    if identity and not hierarchy.GetItemAttribute(study, kept):  # the export dialog looks there only
        hierarchy.SetItemAttribute(study, kept, identity)


def segmentationsOf(volume):
    """The segmentations that were drawn on `volume`."""
    return [
        node
        for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
        if node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole()) is volume
    ]


def collections():
    """[(name, number of volumes, what holds them)]: items of the subject hierarchy (numbers), and sequence nodes."""
    found = []
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    for item in slicer.util.getSubjectHierarchyItemChildren(recursive=True) if hierarchy is not None else ():
        node = _dataOf(item)
        if node is None or node.IsA("vtkMRMLDisplayNode"):  # a folder that was coloured or hidden has a display node
            volumes = itemsOf(item)
            if len(volumes) > 1:
                found.append((hierarchy.GetItemName(item), len(volumes), item))
    for sequence in slicer.util.getNodesByClass("vtkMRMLSequenceNode"):
        if sequence.GetDataNodeClassName() == VOLUME_CLASS and not roleOf(sequence):
            found.append((sequence.GetName(), sequence.GetNumberOfDataNodes(), sequence))
    return found


def _dataOf(item):
    return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene).GetItemDataNode(item)


def playAlong(sequence, source):
    """Let the browser that plays `source` play `sequence` with it, so that their frames are seen together."""
    if source is None or not slicer.mrmlScene.IsNodeClassRegistered("vtkMRMLSequenceBrowserNode"):
        return  # it left the scene meanwhile, or this application does not play sequences
    record(sequence, "result", source)
    browsers = slicer.util.getNodesByClass("vtkMRMLSequenceBrowserNode")
    browser = next(
        (browser for browser in browsers if browser.IsSynchronizedSequenceNodeID(source.GetID(), True)), None
    )
    if browser is None:
        browser = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", source.GetName())
        browser.SetAndObserveMasterSequenceNodeID(source.GetID())
    browser.AddSynchronizedSequenceNodeID(sequence.GetID())


def transformOfFrames(sequence):
    """The transform that the frames of `sequence` are shown under, None without; and whether it changes with the frames.

    Frames themselves know of none: it is their proxy, the node that shows one of them, which lies under it.
    """
    for browser in slicer.util.getNodesByClass("vtkMRMLSequenceBrowserNode"):
        proxy = browser.GetProxyNode(sequence)
        transform = proxy.GetParentTransformNode() if proxy is not None else None
        if transform is not None:
            return transform, browser.GetSequenceNode(transform) is not None
    return None, False


def fileName(name):
    """`name` as part of a file name."""
    return re.sub(r"[^\w.()-]+", "_", name).strip("_") or "volume"


def stemOf(path):
    """A file's or folder's name without the suffix of an image."""
    return re.sub(r"\.(nii\.gz|nii|nrrd|nhdr|mha|mhd|mgz)$", "", Path(path).name, flags=re.IGNORECASE)
