"""Volume nodes for the tests of the module's logic."""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
import vtk


def matrix(values: np.ndarray) -> vtk.vtkMatrix4x4:
    made = vtk.vtkMatrix4x4()
    for row in range(4):
        for column in range(4):
            made.SetElement(row, column, float(values[row, column]))
    return made


def volume(name: str = "T2 thick", axes: np.ndarray | None = None, size: tuple[int, int, int] = (14, 12, 8)) -> Any:
    """A node of `size` voxels (i, j, k) of 1 x 1.2 x 4 mm with a blob in it."""
    k, j, i = np.meshgrid(*(np.arange(n) for n in reversed(size)), indexing="ij")
    array = 500 * np.exp(-(((k - 3) / 2.0) ** 2 + ((j - 5) / 3.0) ** 2 + ((i - 8) / 4.0) ** 2)) + 10
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    slicer.util.updateVolumeFromArray(node, array.astype(np.int16))
    toRAS = np.eye(4)
    toRAS[:3, :3] = (np.eye(3) if axes is None else axes) * (1.0, 1.2, 4.0)
    toRAS[:3, 3] = (12.0, -30.0, 45.0)
    node.SetIJKToRASMatrix(matrix(toRAS))
    node.CreateDefaultDisplayNodes()
    return node


def volumes() -> list[Any]:
    return slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
