"""Pictures of evaluations: the truth, what was acquired, the answers and their errors on one colour scale."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import MissingRequirement, OutputError
from ..files import read_regular
from ..grid import Grid
from ..staging import Staging
from ..volume import Volume
from . import metrics
from .degrade import DegradedPair, front_to_back, scored_axis
from .super_resolution import score

FIGURES = (".png", ".pdf", ".svg", ".jpg")
MAKER = "MRSuperRes"  # written into every picture, by which it is known again
LARGEST_PICTURE = 2**26  # bytes


def _signed(suffix: str) -> dict[str, Any]:
    """What makes matplotlib write into a picture who drew it."""
    if suffix == ".jpg":
        return {"pil_kwargs": {"comment": MAKER.encode()}}
    return {"metadata": {"Software" if suffix == ".png" else "Creator": MAKER}}


def check_figure(path: str | os.PathLike[str]) -> None:
    """Raise what `figure` would raise after all the work: `MissingRequirement` without matplotlib, `OutputError`."""
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingRequirement("matplotlib draws the figure and is not installed (pip install matplotlib)")
    if Path(path).suffix.lower() not in FIGURES:
        raise OutputError(
            f"{path}: a figure is drawn as {', '.join(FIGURES)}, not as '{Path(path).suffix}'", code="output-format"
        )
    if os.path.lexists(path) and not _is_ours(path):
        raise OutputError(f"{path} is there already and was not drawn here: choose another name", code="not-ours")
    with Staging() as files:
        files.path(path)


def _is_ours(path: str | os.PathLike[str]) -> bool:
    """Whether the picture says that it was drawn here."""
    try:
        return MAKER.encode() in read_regular(path, LARGEST_PICTURE)
    except OSError:
        return False


def figure(path: str | os.PathLike[str], pair: DegradedPair, answers: dict[str, Volume]) -> None:
    """Truth, acquired and each answer through the middle of the head; below, absolute errors on one colour scale.

    path: the picture, in one of the formats `FIGURES`. Raises what `check_figure` raises.
    """
    check_figure(path)
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    axis, spacing = scored_axis(pair), pair.truth.grid.spacing[::-1]
    box = metrics.head_box(pair.truth.array)
    middle = (
        (box[axis].start + box[axis].stop) // 2 if box[axis].start is not None else pair.truth.array.shape[axis] // 2
    )

    def cut(array: np.ndarray) -> np.ndarray:
        index = min(array.shape[axis] - 1, middle * array.shape[axis] // pair.truth.array.shape[axis])
        image = np.take(array, index, axis=axis)
        return image[::-1] if _upside_down(pair.truth.grid, axis) else image

    rest = [a for a in range(3) if a != axis]
    height, width = (pair.truth.array.shape[a] * spacing[a] for a in rest)
    extent = (0.0, width, height, 0.0)
    high = float(np.percentile(cut(pair.truth.array), 99.8))
    low = float(np.percentile(pair.truth.array, 0.1))
    worst = 0.0
    for name in ("bspline", *answers):
        if name in answers:
            worst = float(np.percentile(np.abs(cut(answers[name].array) - cut(pair.truth.array)), 99.5)) or 1.0
            break
    columns = 2 + len(answers)
    plot, axes = plt.subplots(2, columns, figsize=(2.6 * columns, 2 * 2.6 * height / width + 0.8), layout="constrained")
    shown = [("truth", pair.truth), (f"acquired (x{pair.factor:g} coarser)", pair.low), *answers.items()]
    colours = None
    for column, (name, volume) in enumerate(shown):
        axes[0, column].imshow(
            cut(volume.array), cmap="gray", vmin=low, vmax=high, extent=extent, interpolation="nearest"
        )
        axes[0, column].set_title(name, fontsize=9)
        axes[0, column].axis("off")
        axes[1, column].axis("off")
        if column >= 2:
            error = np.abs(cut(volume.array) - cut(pair.truth.array))
            colours = axes[1, column].imshow(
                error, cmap="inferno", vmin=0, vmax=worst, extent=extent, interpolation="nearest"
            )
            found = score(pair, volume, name).metrics
            axes[1, column].set_title(f"{found['psnr']:.2f} dB  SSIM {found['ssim']:.3f}", fontsize=9)
    if colours is not None:
        plot.colorbar(colours, ax=axes[1, :], location="right", shrink=0.8, label="absolute error, the scan's units")
    try:
        with Staging() as files:
            plot.savefig(files.path(path), dpi=130, **_signed(Path(path).suffix.lower()))
            files.commit()
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        plt.close(plot)


def _upside_down(grid: Grid, array_axis: int) -> bool:
    """Whether rows of a slice across `array_axis` run from foot to head, or from front to back reversed."""
    rows = 2 - min(a for a in range(3) if a != array_axis)
    column = grid.axes[:, rows]
    return bool(column[2] > 0.5 or (abs(column[1]) > 0.5 and column[1] < 0))


def through_plane_figure(
    path: str | os.PathLike[str],
    truth: Volume,
    coarse: Volume,
    shown: Sequence[tuple[str, float, Volume]],
    axis: int,
) -> None:
    """One slice across the thick slices: acquired, the answers, the truth; below, a part enlarged and the errors on one scale.

    shown: name, PSNR (dB) and volume of each answer. Raises `MissingRequirement` without matplotlib.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingRequirement("matplotlib draws it and is not installed (pip install matplotlib)") from error

    depth = front_to_back(truth.grid, axis)
    index = truth.grid.size[depth] // 2

    def cut(volume: Volume) -> np.ndarray:
        """(slice axis upwards, the other axis), head up."""
        across = np.take(volume.array, index, axis=2 - depth)
        across = across if axis > ({0, 1, 2} - {axis, depth}).pop() else across.T
        return across[::-1] if truth.grid.direction[6 + axis] > 0 else across

    fine = cut(truth)
    thick = np.repeat(cut(coarse), truth.grid.size[axis] // coarse.grid.size[axis], axis=0)
    panels = [
        (f"acquired, {coarse.grid.spacing[axis]:.3g} mm slices", thick),
        *((name, cut(volume)) for name, _, volume in shown),
        ("truth", fine),
    ]
    scores = {name: f"{psnr:.1f} dB" for name, psnr, _ in shown}
    errors = {name: np.abs(cut(volume) - fine) for name, _, volume in shown}
    bright = float(np.percentile(fine, 99.7))
    worst = max(float(np.percentile(error, 99.5)) for error in errors.values())
    part = _busiest(fine, thick)

    figure = Figure(figsize=(3.1 * len(panels), 8.6), facecolor="black", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(3, len(panels))
    for column, (name, image) in enumerate(panels):
        title = f"{name}  {scores[name]}" if name in scores else name
        axes[0, column].imshow(image, cmap="gray", vmin=0.0, vmax=bright)
        axes[0, column].set_title(title, color="white", fontsize=12)
        axes[1, column].imshow(image[part], cmap="gray", vmin=0.0, vmax=bright)
        if name in errors:
            drawn = axes[2, column].imshow(errors[name], cmap="inferno", vmin=0.0, vmax=worst)
            axes[2, column].set_title("error", color="white", fontsize=10)
    bar = figure.colorbar(drawn, ax=axes[2, -1], location="left", fraction=0.9, aspect=14)
    bar.ax.tick_params(colors="white", labelsize=8)
    for each in axes.flat:
        each.axis("off")
    with Staging() as files:
        figure.savefig(files.path(path), dpi=110, facecolor="black", **_signed(Path(path).suffix.lower()))
        files.commit()


def _busiest(fine: np.ndarray, thick: np.ndarray) -> tuple[slice, slice]:
    """The window, two fifths of the slice, in which the thick slices lost most."""
    size = tuple(max(8, 2 * n // 5) for n in fine.shape)
    lost = np.pad(np.cumsum(np.cumsum((fine - thick) ** 2, axis=0), axis=1), ((1, 0), (1, 0)))
    rows, columns = (n - m + 1 for n, m in zip(fine.shape, size, strict=True))
    windows = lost[size[0] :, size[1] :] - lost[:rows, size[1] :] - lost[size[0] :, :columns] + lost[:rows, :columns]
    row, column = np.unravel_index(int(np.argmax(windows)), windows.shape)
    return slice(int(row), int(row) + size[0]), slice(int(column), int(column) + size[1])
