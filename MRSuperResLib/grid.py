"""Where voxels lie in the patient. `Grid` owns all geometry; it counts (i, j, k), in LPS mm."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from .errors import BadVolume

ORTHONORMAL_TOLERANCE = 1e-3
FINEST, COARSEST = 1e-4, 1e4  # mm, of a voxel: beyond is a damaged header or another unit
FARTHEST = 1e6  # mm, of a voxel from the origin of the world
SQUARE = 1.02  # ratio of a pixel's sides up to which one pair of axes is as square as another


@dataclass(frozen=True)
class Grid:
    """A regular sampling of patient space (LPS, as SimpleITK).

    size: voxels along i, j, k. spacing: mm. origin: centre of voxel (0, 0, 0), mm. direction: 3x3 as nine numbers, row by
    row; its columns are the axes.
    """

    size: tuple[int, int, int]
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    direction: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)

    def __post_init__(self) -> None:
        if len(self.size) != 3 or min(self.size) < 1:
            raise BadVolume(f"a grid of {self.size} voxels is not a 3D volume", code="bad-geometry")
        if len(self.spacing) != 3 or not all(FINEST <= mm <= COARSEST for mm in self.spacing):
            raise BadVolume(
                f"voxel spacing is {numbers(self.spacing)} mm, expected three numbers above 0 ({FINEST:g} to {COARSEST:g}); "
                "mend the header",
                code="bad-spacing",
            )
        if len(self.origin) != 3 or not all(abs(mm) <= FARTHEST for mm in self.origin):
            raise BadVolume(
                f"the first voxel lies at {numbers(self.origin)} mm, expected three numbers within {FARTHEST:g} mm of the "
                "scanner's centre; mend the header",
                code="bad-origin",
            )
        axes = self.axes
        if axes.shape != (3, 3) or not np.allclose(axes.T @ axes, np.eye(3), atol=ORTHONORMAL_TOLERANCE):
            raise BadVolume(
                f"the axes' directions {numbers(self.direction)} are not at right angles and of length 1 (gantry tilt, or "
                "a sheared header?); resample the scan to a straight grid first",
                code="bad-direction",
            )

    @property
    def axes(self) -> np.ndarray:
        """Direction cosines, 3x3, one column for each of i, j, k."""
        return np.asarray(self.direction, dtype=float).reshape(3, -1)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Array shape, (k, j, i)."""
        return (self.size[2], self.size[1], self.size[0])

    @property
    def extent(self) -> tuple[float, float, float]:
        """Length along i, j, k, voxel edge to voxel edge, mm."""
        i, j, k = (n * mm for n, mm in zip(self.size, self.spacing, strict=True))
        return (i, j, k)

    @property
    def slice_axis(self) -> int:
        """Which of i, j, k (0, 1, 2) has the coarsest spacing; the last of equals."""
        coarsest = max(self.spacing)
        return max(axis for axis in range(3) if self.spacing[axis] >= coarsest * (1 - 1e-3))

    def slice_axis_for(self, plane: str) -> int:
        """The axis across the slices that a network for `plane` sees: the coarsest, or the one across the squarest pixels.

        plane: "in-plane" asks for square pixels, which a coarse matrix of thin slices has too; another one for the coarsest.
        """
        if plane != "in-plane":
            return self.slice_axis
        within = [[self.spacing[other] for other in range(3) if other != axis] for axis in range(3)]
        stretch = [max(pair) / min(pair) for pair in within]
        square = [axis for axis in range(3) if stretch[axis] <= min(stretch) * SQUARE]
        return square[0] if len(square) == 1 else self.slice_axis

    def axis_name(self, axis: int) -> str:
        """The plane perpendicular to `axis`: "sagittal", "coronal" or "axial", the nearest one for oblique scans."""
        return ("sagittal", "coronal", "axial")[int(np.argmax(np.abs(self.axes[:, axis])))]

    def index_to_world(self, points: np.ndarray) -> np.ndarray:
        """(N, 3) continuous indices i, j, k -> (N, 3) LPS mm."""
        return np.asarray(points, dtype=float) * self.spacing @ self.axes.T + self.origin

    def world_to_index(self, points: np.ndarray) -> np.ndarray:
        """(N, 3) LPS mm -> (N, 3) continuous indices i, j, k."""
        return (np.asarray(points, dtype=float) - self.origin) @ self.axes / self.spacing

    def corners(self) -> np.ndarray:
        """The eight outer corners of the voxel box, (8, 3) LPS mm."""
        ends = np.array(np.meshgrid(*([-0.5, n - 0.5] for n in self.size), indexing="ij")).reshape(3, -1).T
        return self.index_to_world(ends)

    def contains(self, points: np.ndarray) -> np.ndarray:
        """(N, 3) LPS mm -> (N,) whether each lies inside the voxel box, edges included."""
        index = self.world_to_index(points)
        return np.all((index >= -0.5 - 1e-6) & (index <= np.asarray(self.size) - 0.5 + 1e-6), axis=-1)

    def refine(self, factors: tuple[float, float, float]) -> Grid:
        """The same physical extent, edge to edge, sampled `factors` times finer along i, j, k."""
        return self.with_size(*(max(1, round(n * f)) for n, f in zip(self.size, factors, strict=True)))

    def coarsen(self, factors: tuple[float, float, float]) -> Grid:
        """The same physical extent, edge to edge, sampled `factors` times coarser along i, j, k."""
        return self.with_size(*(max(1, round(n / f)) for n, f in zip(self.size, factors, strict=True)))

    def with_spacing(self, spacing: tuple[float, float, float]) -> Grid:
        """The same physical extent at the voxel spacing nearest to `spacing` (mm) that fits it."""
        return self.with_size(*(max(1, round(mm / step)) for mm, step in zip(self.extent, spacing, strict=True)))

    def with_size(self, i: int, j: int, k: int) -> Grid:
        """The same physical extent with another number of voxels."""
        size = (i, j, k)
        spacing = tuple(mm / n for mm, n in zip(self.extent, size, strict=True))
        shift = [(new - old) / 2 for new, old in zip(spacing, self.spacing, strict=True)]
        origin = np.asarray(self.origin) + self.axes @ shift
        return Grid(size, spacing, tuple(origin.tolist()), self.direction)  # type: ignore[arg-type]

    def crop(self, start: tuple[int, int, int], size: tuple[int, int, int]) -> Grid:
        """The part of the grid that begins at voxel `start` (i, j, k; may be negative, to pad)."""
        origin = self.index_to_world(np.asarray([start], dtype=float))[0]
        return Grid(size, self.spacing, tuple(origin.tolist()), self.direction)  # type: ignore[arg-type]

    def same_as(self, other: Grid, tolerance: float = 1e-3) -> bool:
        """Whether both sample the same points, to `tolerance` mm at every corner."""
        return self.size == other.size and bool(np.allclose(self.corners(), other.corners(), atol=tolerance, rtol=0))


def numbers(values: Iterable[float]) -> str:
    """Numbers for a message: "(1, 0.9, 3.3)"."""
    return "(" + ", ".join(f"{float(value):.4g}" for value in values) + ")"
