"""Pictures of a report."""

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage
from skimage.measure import find_contours

from jaxmem.io.meshes.colours import MEMBRANES
from jaxmem.types import MEMBRANE, Tomogram

if TYPE_CHECKING:
    import matplotlib.figure

MOST_SURFACES = 24  # pictures of surfaces in a report


def new_figure(width: float, height: float) -> "matplotlib.figure.Figure":
    """An empty figure of so many inches; matplotlib is loaded here, when a report is made."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height))


def _colours() -> np.ndarray:
    """Ten colours that are told apart; a row is red, green, blue and opacity, from 0 to 1."""
    return np.insert(MEMBRANES, 3, 1.0, axis=1)


def as_png(figure: "matplotlib.figure.Figure") -> str:
    """A PNG of a figure, in base 64."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=80)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _grey(axes, image: np.ndarray) -> None:
    finite = image[np.isfinite(image)]
    low, high = np.percentile(finite, [0.5, 99.5]) if finite.size else (0.0, 1.0)
    axes.imshow(image, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), interpolation="nearest")
    axes.set_axis_off()


def _outlines(axes, labels: np.ndarray) -> None:
    """Outlines of the labels in a slice, each from its own box: a picture of hundreds would take gigabytes otherwise."""
    from matplotlib.collections import LineCollection

    colours, lines, of = _colours(), [], []
    for value, box in enumerate(ndimage.find_objects(labels), 1):
        if box is not None:
            low = np.array([side.start - 1 for side in box])
            found = find_contours(np.pad(labels[box] == value, 1).astype(np.float32), 0.5)
            lines += [(line + low)[:, ::-1] for line in found]
            of += [colours[(value - 1) % 10]] * len(found)
    axes.add_collection(LineCollection(lines, colors=of, linewidths=1.0))


def _chosen(labels: Any, most: int) -> np.ndarray:
    """Slices to show: evenly among those with membranes, their ends left out, or among all."""
    occupied = np.flatnonzero([labels[z].any() for z in range(len(labels))])
    inside = occupied if len(occupied) else np.arange(len(labels))
    chosen = np.unique(inside[np.linspace(0, len(inside) - 1, min(most + 2, len(inside))).astype(int)])
    return chosen[1:-1] if len(chosen) > most else chosen


def slices_figure(tomogram: Tomogram, semantic: Any, labels: Any, most: int = 4) -> "matplotlib.figure.Figure":
    """Slices as they are, with what the network found, and with the membranes' labels in colour; at most `most`."""
    data = tomogram.data if tomogram.data.ndim == 3 else tomogram.data[None]
    chosen = _chosen(labels, most)
    ratio = data.shape[1] / data.shape[2]
    several = len(chosen) > 1
    figure = new_figure(3.2 * len(chosen) if several else 5.0, 3 * 3.2 * ratio * (1.0 if several else 1.5))
    for column, z in enumerate(chosen):
        near = slice(max(0, z - 1), z + 2)
        image = np.asarray(data[near], np.float32).mean(0)
        for row in range(3):
            axes = figure.add_subplot(3, len(chosen), row * len(chosen) + column + 1)
            _grey(axes, image)
            if row == 0:
                axes.set_title(f"slice {z}", fontsize=10)
            elif row == 1:
                axes.contour(semantic[z] == MEMBRANE, levels=[0.5], colors=["#ffb000"], linewidths=0.8)
            else:
                _outlines(axes, labels[z])
    figure.tight_layout(pad=0.3)
    return figure


def groups_figure(tomogram: Tomogram, groups: Any, labels: Any, most: int = 3) -> "matplotlib.figure.Figure":
    """Points of the midline in at most `most` slices: in the colours of their regions, and of membranes (paper, Figs. 4 and 6)."""
    data = tomogram.data if tomogram.data.ndim == 3 else tomogram.data[None]
    chosen = _chosen(labels, most)
    members = np.concatenate([groups.points[:0], *groups.members])
    number = np.repeat(np.arange(len(groups.members)) + 1, [len(m) for m in groups.members])
    rows = ("regions", groups.points, groups.region), ("membranes", members, number)
    colours = _colours()
    figure = new_figure(4.2 * max(len(chosen), 2), 2 * 4.2 * data.shape[1] / data.shape[2] + 0.4)
    for row, (title, points, of) in enumerate(rows):
        for column, z in enumerate(chosen):
            axes = figure.add_subplot(2, len(chosen), row * len(chosen) + column + 1)
            image = np.asarray(data[z], np.float32)
            middle, width = float(np.median(image)), max(float(np.std(image)), 1e-6)
            axes.imshow(image, cmap="gray", vmin=middle - 5 * width, vmax=middle + 2 * width, interpolation="nearest")
            here = np.full(len(points), True) if points.shape[1] == 2 else np.abs(points[:, 0] - z) <= 0.5
            axes.scatter(points[here, -1], points[here, -2], s=2.5, c=colours[(of[here] - 1) % 10], linewidths=0)
            axes.set(xlim=(-0.5, data.shape[2] - 0.5), ylim=(data.shape[1] - 0.5, -0.5))
            axes.set_title(f"{title}, slice {z}", fontsize=10)
            axes.set_axis_off()
    figure.tight_layout(pad=0.3)
    return figure


def side_figure(tomogram: Tomogram, labels: Any, membranes: Sequence) -> "matplotlib.figure.Figure":
    """The xz view through the middle of the first membrane: where the missing wedge takes the caps."""
    data = tomogram.data
    y = int(membranes[0].mesh.vertices[:, 1].mean()) if len(membranes) else data.shape[1] // 2
    y = min(max(y, 0), data.shape[1] - 1)
    figure = new_figure(10.0, max(2.0, 10 * data.shape[0] / data.shape[2]))
    axes = figure.add_subplot(1, 1, 1)
    _grey(axes, np.asarray(data[:, max(0, y - 1) : y + 2], np.float32).mean(1))
    _outlines(axes, labels[:, y])
    axes.set_title(f"xz, row {y}", fontsize=10)
    figure.tight_layout(pad=0.3)
    return figure


def _from_the_side(
    mesh: Any, colours: np.ndarray, pixels: int = 240
) -> tuple[np.ndarray, tuple[float, float, float, float]]:
    """A picture of a mesh from the front and a little above, and its place: left, right, bottom, top, voxels.

    Each triangle is a grid of points a pixel apart, and of those in a pixel the nearest is seen: polygons of a plotting library take
    a kilobyte each.

    Arguments:
        mesh: in three dimensions.
        colours: (n, 4) of the vertices.
        pixels: along the longer side.
    """
    turn = np.deg2rad(20.0)
    z, y, x = mesh.vertices.T
    screen = np.stack([x, z * np.cos(turn) + y * np.sin(turn)], 1)
    depth = y * np.cos(turn) - z * np.sin(turn)
    light = 0.6 + 0.4 * np.abs(mesh.normals[:, 1] * np.cos(turn) - mesh.normals[:, 0] * np.sin(turn))
    low, high = screen.min(0) - 2.0, screen.max(0) + 2.0
    size = float((high - low).max()) / pixels
    columns, rows = np.ceil((high - low) / size).astype(int)
    corners = screen[mesh.faces]
    cuts = int(np.clip(np.ceil(np.abs(np.diff(corners, axis=1)).max(initial=0.0) / size), 1, 12))
    weights = np.array([(i, j, cuts - i - j) for i in range(cuts + 1) for j in range(cuts + 1 - i)]) / cuts
    place = np.einsum("wk,fkd->fwd", weights, corners)
    column, row = (((place[..., d] - low[d]) / size).astype(int) for d in (0, 1))
    pixel = (np.clip(row, 0, rows - 1) * columns + np.clip(column, 0, columns - 1)).ravel()
    order = np.argsort(np.einsum("wk,fk->fw", weights, depth[mesh.faces]).ravel())
    nearest = np.full(rows * columns, -1)
    nearest[pixel[order]] = order // len(weights)  # of equal pixels the last, and nearest, stays
    shaded = np.concatenate([colours[:, :3] * light[:, None], colours[:, 3:]], 1)[mesh.faces].mean(1)
    image = np.where(nearest[:, None] >= 0, shaded[nearest], 0.0)
    image = image.reshape(rows, columns, 4)
    return image, (low[0], low[0] + columns * size, low[1], low[1] + rows * size)


def surfaces_figure(membranes: Sequence, voxel_size: float, most: int = MOST_SURFACES) -> "matplotlib.figure.Figure":
    """The first surfaces, at most `most`, seen from the side (x to the right, z up), coloured by the standard deviation of its position in A."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    membranes = membranes[:most]
    columns = min(4, len(membranes))
    rows = -(-len(membranes) // columns)
    width = 3.2 * columns + 1.4  # inches, of which 1.4 are the scale's
    figure = new_figure(width, 3.0 * rows)
    top = max(float(np.percentile(m.mesh.sigma, 99)) for m in membranes) * voxel_size
    norm = Normalize(0.0, max(top, 1e-6))
    paint = ScalarMappable(norm, "viridis")
    panels = []
    for number, membrane in enumerate(membranes, 1):
        mesh = membrane.mesh
        axes = figure.add_subplot(rows, columns, number)
        panels.append(axes)
        if mesh.vertices.shape[1] == 3:
            image, extent = _from_the_side(mesh, paint.to_rgba(mesh.sigma * voxel_size))
            axes.imshow(image, extent=extent, origin="lower", interpolation="nearest")
        else:
            screen = mesh.vertices[:, ::-1]
            axes.scatter(*screen.T, c=mesh.sigma * voxel_size, norm=norm, cmap="viridis", s=3)
            axes.set_ylim(screen[:, 1].max() + 2, screen[:, 1].min() - 2)
            axes.set_xlim(screen[:, 0].min() - 2, screen[:, 0].max() + 2)
        axes.set_aspect("equal")
        axes.set_axis_off()
        axes.set_title(f"membrane {number}", fontsize=10)
    figure.subplots_adjust(left=0.02, right=1 - 1.4 / width, top=0.92, bottom=0.02)
    bar = figure.add_axes((1 - 1.2 / width, 0.15, 0.2 / width, 0.7))
    figure.colorbar(paint, cax=bar, label="sigma (A)")
    return figure


def slice_figure(scores: dict[str, Any]) -> "matplotlib.figure.Figure":
    """Dice of each slice and of what the network says by itself (paper, Fig. 21)."""
    figure = new_figure(6.0, 3.0)
    axes = figure.add_subplot()
    z = [row["slice"] for row in scores["slices"]]
    axes.plot(z, [row["dice"] for row in scores["slices"]], label="surfaces")
    axes.plot(z, [row["network_dice"] for row in scores["slices"]], label="network alone")
    axes.set(xlabel="slice", ylabel="Dice", ylim=(0, 1))
    axes.legend()
    figure.tight_layout()
    return figure


def neighbours_figure(scores: dict[str, Any]) -> "matplotlib.figure.Figure":
    """How often the largest distance between neighbouring slices is how large (paper, Fig. 13)."""
    figure = new_figure(6.0, 3.0)
    axes = figure.add_subplot()
    parts = scores["neighbouring_slices"]
    top = max([1.0, *(d for part in parts.values() for d in part["distances"])])
    for name, label in (("network", "network alone"), ("surfaces", "surfaces")):
        axes.hist(parts[name]["distances"], bins=np.linspace(0.0, top, 25).tolist(), alpha=0.6, label=label)
    axes.set(xlabel="voxels", ylabel="pairs of slices")
    axes.legend()
    figure.tight_layout()
    return figure


def reliability_figure(scores: dict[str, Any]) -> "matplotlib.figure.Figure":
    """Share of the truth within intervals of each level; on the line where error bars are right."""
    figure = new_figure(3.4, 3.2)
    axes = figure.add_subplot()
    levels = [float(level) for level in scores["reliability"]]
    axes.plot([0, 1], [0, 1], color="0.7")
    axes.plot(levels, list(scores["reliability"].values()), marker="o")
    axes.set(xlabel="level of the interval", ylabel="share within", xlim=(0, 1), ylim=(0, 1))
    figure.tight_layout()
    return figure


def losses_figure(losses: dict[str, list[float]]) -> "matplotlib.figure.Figure":
    """Loss on the images that a network learnt from and on others, after each epoch (paper, Fig. 16)."""
    figure = new_figure(6.0, 3.0)
    axes = figure.add_subplot()
    axes.plot(losses["epoch"], losses["train_loss"], marker="o", label="training images")
    axes.plot(losses["epoch"], losses["loss"], marker="o", label="test images")
    axes.set(xlabel="epoch", ylabel="loss", yscale="log")
    axes.legend()
    figure.tight_layout()
    return figure
