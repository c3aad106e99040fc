"""Sample data: Slicer's own MR head, also as a scan with thick slices would show it, so that there is a truth to compare with."""

import slicer

THICKNESS = 4  # times the original's slice spacing


def register():
    """Offer the sample in the Sample Data module; called once Slicer has started."""
    import SampleData

    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category="MRSuperRes",
        sampleName="MRHead, thick slices and truth",
        uris=None,
        fileNames=None,
        nodeNames=None,
        customDownloader=lambda source: load(),
    )


def load():
    """Add MRHead (the truth; downloaded once, its checksum verified by Sample Data) and its thick-slice version to the scene."""
    import SampleData

    return list(_thick(SampleData.SampleDataLogic().downloadMRHead()))


def _thick(truth):
    """(the node with thick slices, the truth): the same extent, coarser along the truth's slice axis."""
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
    slicer.util.setSliceViewerLayers(background=node)
    return node, truth
