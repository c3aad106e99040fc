"""Places that a translation may have lost or changed: a segmentation over the result, what is known of each, and the way there.

The library finds them in the scan, where no translation can hide them (`MRSuperResLib.inference.flags`).
"""

import json
from dataclasses import dataclass

import slicer
import vtk

from . import scene
from .words import _

ROLE = "flags"
KEPT = scene.ATTRIBUTE + "places"  # of the segmentation: what is known of each place
COLOUR = (1.0, 0.55, 0.0)  # of all of them: they mean one thing
# A change of the tissue, of which nobody knows what it is.
TERMINOLOGY = (
    "Segmentation category and type - DICOM master list~SCT^49755003^Morphologically Altered Structure"
    "~SCT^52988006^Lesion~^^~Anatomic codes - DICOM master list~^^~^^"
)


@dataclass(frozen=True)
class Place:
    """number: 1 for the largest. volume: mm^3. diameter: mm, of the sphere of that volume. centre: RAS mm in the world, inside."""

    number: int
    volume: float
    diameter: float
    centre: tuple


def fill(node, array, grid, found):
    """Give the segmentation `node` a segment for each place.

    array: (k, j, i) numbers of places, 0 where there is none. found: what the record says of each, with its "label",
    "volume_mm3", "diameter_mm" and "centre_lps_mm".
    """
    labels = slicer.vtkMRMLLabelMapVolumeNode()  # never in the scene
    scene.fill(labels, array.astype("uint16"), grid)
    segments = node.GetSegmentation()
    segments.RemoveAllSegments()
    slicer.vtkSlicerSegmentationsModuleLogic.ImportLabelmapToSegmentationNode(labels, node)
    known = {place["label"]: place for place in found}
    for number in range(segments.GetNumberOfSegments()):
        segment = segments.GetNthSegment(number)
        place = known[segment.GetLabelValue()]
        name = _("{number}: {diameter:.0f} mm across, {volume} ml")
        values = {"number": place["label"], "diameter": place["diameter_mm"]}
        segment.SetName(name.format(**values, volume=_millilitres(place["volume_mm3"])))
        segment.SetColor(*COLOUR)
        segment.SetTag(segment.GetTerminologyEntryTagName(), TERMINOLOGY)
    node.SetAttribute(KEPT, json.dumps(found))
    display = node.GetDisplayNode()
    display.SetVisibility2DFill(False)  # what is seen there is what matters
    display.SetVisibility2DOutline(True)
    display.SetVisibility3D(False)


def segmentationOf(volume):
    """The segmentation of what a translation may have lost: `volume`, or one that it was made from. None if there is none."""
    seen = []
    while volume is not None and volume not in seen:
        for node in scene.attached(volume, ROLE):
            return node
        seen.append(volume)
        volume = scene.sourceOf(volume)
    return None


def placesOf(volume):
    """What a translation may have lost, `volume` or one that it was made from: a `Place` each, the largest first."""
    node = segmentationOf(volume)
    if node is None:
        return []
    toWorld = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(node.GetParentTransformNode(), None, toWorld)
    return [
        Place(
            place["label"],
            place["volume_mm3"],
            place["diameter_mm"],
            tuple(toWorld.TransformPoint(_ras(place["centre_lps_mm"]))),
        )
        for place in json.loads(node.GetAttribute(KEPT) or "[]")
    ]


def _ras(lps):
    return -lps[0], -lps[1], lps[2]


def goTo(place):
    """Show `place` in the middle of all slice views."""
    mode = slicer.vtkMRMLSliceNode.CenteredJumpSlice
    slicer.vtkMRMLSliceNode.JumpAllSlices(slicer.mrmlScene, *place.centre, mode)
    crosshair = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
    if crosshair is not None:
        crosshair.SetCrosshairRAS(*place.centre)


def showOnly(volume):
    """Show the places of `volume` (None: of nothing), and those of no other: another patient's are not this one's."""
    wanted = segmentationOf(volume)
    for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
        if scene.roleOf(node) == ROLE and node.GetDisplayNode() is not None:
            node.GetDisplayNode().SetVisibility(node is wanted)


def warning(places):
    """How many places there are and how large they are together, in words."""
    volume = _millilitres(sum(place.volume for place in places))
    if len(places) == 1:
        text = _("A place unlike healthy brain, {volume} ml: the translation may have lost it. Look at the scan.")
    else:
        text = _(
            "{count} places unlike healthy brain, {volume} ml in all: the translation may have lost them. Look at the scan."
        )
    return text.format(count=len(places), volume=volume)


def _millilitres(volume):
    """mm^3 in ml, as text; no place is so small that it is told as nothing."""
    ml = volume / 1000
    return f"{ml:.1f}" if ml >= 1 else f"{ml:.2g}"
