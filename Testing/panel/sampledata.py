"""`SampleData`, as far as modules register samples with it, as strict about a source's lists as Slicer's; nothing is downloaded."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

import SimpleITK as sitk
import slicer


class SampleDataSource:
    """What is known of a sample: one name, or equally long lists of them."""

    def __init__(self, **fields: Any) -> None:
        single = isinstance(fields["uris"], str)
        for name in ("uris", "fileNames", "nodeNames", "checksums"):
            value = [fields[name]] if single else list(fields[name])
            setattr(self, name, value)
            assert len(value) == len(self.uris) and all(isinstance(text, str) for text in value), name
        self.sampleName, self.customDownloader = fields["sampleName"], fields["customDownloader"]
        self.thumbnailFileName = fields.get("thumbnailFileName")


class SampleDataLogic:
    """Loads what lies on this computer; for anything else, Slicer without a network."""

    @staticmethod
    def registerCustomSampleDataSource(category: str, **fields: Any) -> None:
        slicer.modules.__dict__.setdefault("sampleDataSources", {}).setdefault(category, []).append(
            SampleDataSource(**fields)
        )

    def downloadFromSource(self, source: SampleDataSource) -> list[Any]:
        nodes = []
        for uri, name, checksum in zip(source.uris, source.nodeNames, source.checksums, strict=True):
            if urlparse(uri).scheme != "file":
                continue
            path = Path(url2pathname(urlparse(uri).path))
            algorithm, digest = slicer.util.extractAlgoAndDigest(checksum)
            assert slicer.util.computeChecksum(algorithm, str(path)) == digest
            image = sitk.ReadImage(str(path))
            node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
            slicer.util.updateVolumeFromArray(node, sitk.GetArrayFromImage(image))
            node.SetSpacing(image.GetSpacing())
            node.SetIJKToRASDirections(-1, 0, 0, 0, -1, 0, 0, 0, 1)
            node.SetOrigin(-image.GetOrigin()[0], -image.GetOrigin()[1], image.GetOrigin()[2])
            node.CreateDefaultDisplayNodes()
            nodes.append(node)
        return nodes


def modules() -> dict[str, types.ModuleType]:
    """The module `SampleData`."""
    module = types.ModuleType("SampleData")
    vars(module).update(SampleDataSource=SampleDataSource, SampleDataLogic=SampleDataLogic)
    return {"SampleData": module}
