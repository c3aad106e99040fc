"""Sample data: heads as they were acquired, and as thick slices would show them, so that there is a truth to compare with."""

from pathlib import Path

import slicer

CATEGORY = "MRSuperRes"
THICKNESS = 4  # times the original's slice spacing
RESOURCES = Path(__file__).resolve().parent.parent / "Resources"
PACKAGED = RESOURCES / "SampleData" / "ICBM152_T1w.nrrd"  # copyright and licence: the text file beside it
SAMPLES = (  # shown as, node, file in Slicer's cache, where from, its SHA-256
    (
        "Average brain, thick slices and truth (no download)",
        "ICBM152 T1w",
        PACKAGED.name,
        PACKAGED.as_uri(),
        "0f07e471ce7ae66a3e9d6d2cf645d95826b0b308df2406833c3e8b4c2f79d1f0",
    ),
    (
        "MRHead, thick slices and truth",
        "MRHead",
        "MR-head.nrrd",
        slicer.util.TESTING_DATA_URL + "SHA256/cc211f0dfd9a05ca3841ce1141b292898b2dd2d3f08286affadf823a7e58df93",
        "cc211f0dfd9a05ca3841ce1141b292898b2dd2d3f08286affadf823a7e58df93",
    ),
)


def register():
    """Offer the samples in the Sample Data module; called once Slicer has started."""
    import SampleData

    for shown, node, file, uri, digest in SAMPLES:
        thumbnail = RESOURCES / "Icons" / f"{Path(file).stem}.png"
        SampleData.SampleDataLogic.registerCustomSampleDataSource(
            category=CATEGORY,
            sampleName=shown,
            uris=uri,
            fileNames=file,
            nodeNames=node,
            checksums=f"SHA256:{digest}",
            thumbnailFileName=str(thumbnail) if thumbnail.is_file() else None,
            customDownloader=load,
        )


def load(source):
    """Add a sample (what Sample Data keeps of `register`'s) to the scene: [the node with thick slices, the truth].

    Without a network, and with nothing in Slicer's cache, Sample Data says so and the list is empty.
    """
    import SampleData

    panel = getattr(slicer.modules, "SampleDataWidget", None)  # its own logic writes into its log, a new one does not
    logic = panel.logic if panel is not None else SampleData.SampleDataLogic()
    loaded = logic.downloadFromSource(source)
    nodes = [node for node in loaded if isinstance(node, slicer.vtkMRMLNode)]
    return [_thick(nodes[0]), nodes[0]] if nodes else []


def _thick(truth):
    """A new node: the same extent, coarser along the truth's slice axis."""
    from MRSuperResLib.acquisition import acquire

    from . import scene

    fine = scene.volumeOf(truth)
    axis = fine.grid.slice_axis
    size = list(fine.grid.size)
    size[axis] -= size[axis] % THICKNESS
    fine = fine.crop((0, 0, 0), tuple(size))
    coarse = acquire(fine, tuple(THICKNESS if other == axis else 1 for other in range(3)), "through-gaussian")
    node = scene.create(f"{truth.GetName()} thick")
    scene.fill(node, coarse.array, coarse.grid)
    scene.show(node, truth)
    scene.placeBeside(node, truth)
    scene.showInViews(node, fit=True)
    return node
