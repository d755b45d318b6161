"""Training slices that look like a tomogram: its membranes' profile and its noise, measured (paper, Section 3)."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.ndimage import minimum_filter
from scipy.spatial import cKDTree

from jaxmem.pipeline.masks import truth_midlines
from jaxmem.pipeline.slices import Odd, network_shape, prepared_slices
from jaxmem.pipeline.volume import as_volume
from jaxmem.preprocess import gaussian
from jaxmem.settings import PreprocessConfig
from jaxmem.simulate import SliceModel, matched, measure_noise, measure_profile
from jaxmem.types import JaxmemError, Tomogram

_REACH = 8.0  # pixels to either side of a membrane that its profile covers
_CLEAR = 12.0  # pixels from any membrane where the background begins
_SLICES = 24  # looked at, at most
_PROFILE_POINTS = 65536


_profile = jax.jit(measure_profile)


def match_tomogram(
    tomogram: Tomogram, mask: np.ndarray, model: SliceModel | None = None, config: PreprocessConfig | None = None
) -> SliceModel:
    """Measure a tomogram's membranes and noise, as the network would see them, for `jaxmem train --like`.

    The profile is taken where the membrane stands upright in the slice and faces the row or the column direction, whichever
    shows it deeper: along the tilt axis, whose direction need not be known, the missing wedge has weakened it, and the
    simulation does that by itself. The noise's spectrum comes from windows without membranes.

    Arguments:
        tomogram: membranes dark.
        mask: (nz, ny, nx), not 0 on membranes or on a part of them. A few slices marked by hand will do: where fewer than
            six in a row are marked, the membranes there are taken to stand upright. In a slice that is marked at all,
            membranes it leaves out count as background.
        model: what to keep of shapes, proteins and gaps; the defaults when None.
        config: filters; those a run would use.

    Returns:
        The model with measured profile, noise and contrast.

    Raises:
        JaxmemError: if shapes differ, the mask has too little upright membrane or leaves too little background, or its
            membranes are not darker than the background.

    Source: paper, Section 3 and supplement, Section 1.
    """
    model, config = model or SliceModel(), config or PreprocessConfig()
    tomogram = as_volume(tomogram)
    data = tomogram.data
    mask = mask[None] if mask.ndim == 2 else mask
    if mask.shape != data.shape:
        raise JaxmemError(
            f"the mask has shape {mask.shape}, the tomogram {data.shape}; give the mask of the same volume"
        )
    points, normals = _midlines(np.asarray(mask) != 0)
    if len(points) == 0:
        raise JaxmemError("the mask holds no membrane; mark at least one")
    pixel_size = float(model.pixel_size)
    shape = network_shape(data.shape[1:], tomogram.voxel_size, pixel_size, config)
    scale = np.array(data.shape[1:]) / shape  # voxels in a pixel
    upright = np.abs(normals[:, 0]) < 0.35
    planes = np.unique(np.round(points[upright, 0]).astype(int))
    if upright.sum() < 200 or len(planes) == 0:
        raise JaxmemError("the mask holds too little membrane that stands upright in the slices; mark more of it")
    chosen = set(planes[np.linspace(0, len(planes) - 1, min(len(planes), _SLICES)).astype(int)].tolist())

    tree = cKDTree(points)
    rows, columns = ((np.arange(n) + 0.5) * s - 0.5 for n, s in zip(shape, scale))
    values, distances, facing, background, smooth, windows = [], [], [], [], [], []
    for z, image in enumerate(prepared_slices(data, tomogram.voxel_size, pixel_size, config, Odd(set(), set(), set()))):
        if z not in chosen:
            continue
        grid = np.stack(np.meshgrid([z], rows, columns, indexing="ij"), -1).reshape(-1, 3)
        gap, nearest = tree.query(grid, workers=-1)
        offset = (grid - points[nearest]) / np.array([1.0, *scale])
        across = (offset * normals[nearest]).sum(1)
        beside = np.sqrt(np.maximum((offset**2).sum(1) - across**2, 0.0))
        use = upright[nearest] & (np.abs(across) <= _REACH) & (beside <= 1.0)
        values.append(image.ravel()[use])
        distances.append(across[use])
        facing.append(np.abs(normals[nearest[use], 1:]))
        clear = gap / scale.mean() > _CLEAR
        background.append(image.ravel()[clear])
        smooth.append(np.asarray(gaussian(jnp.asarray(image), (1.0, 1.0))).ravel()[clear])
        windows.append((image, clear.reshape(shape)))
    patches = _clear_windows(windows)
    level = np.float32(np.mean(np.concatenate(background)))
    near, far, towards = np.concatenate(values), np.concatenate(distances), np.concatenate(facing)
    profiles = []
    for axis in (0, 1):
        pick = np.flatnonzero(towards[:, axis] > 0.8)
        if len(pick):
            pick = pick[np.linspace(0, len(pick) - 1, _PROFILE_POINTS).astype(int)]
            profiles.append(_profile(near[pick], far[pick].astype(np.float32), level))
    if not profiles:
        raise JaxmemError("the mask's membranes run diagonally only; mark some that face a side of the slice")
    profile = max(profiles, key=lambda p: float(p.depth))
    contrast = float(profile.depth) / max(float(np.std(np.concatenate(smooth))), 1e-6)
    if contrast < 0.5 or float(profile.density.max()) > 1.0:
        raise JaxmemError(
            f"the masked membranes are not darker than the background (contrast {contrast:.2f}); invert the tomogram, or "
            "check that mask and tomogram lie on each other"
        )
    return matched(model, profile, measure_noise(jnp.asarray(patches), bins=patches.shape[-1] // 2), contrast)


def _midlines(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points and normals on the middle of the mask's membranes: in 3D, or slice by slice where single slices are marked."""
    marked = np.flatnonzero(mask.any((1, 2)))
    blocks = np.split(marked, np.flatnonzero(np.diff(marked) > 1) + 1) if len(marked) else []
    points, normals = [np.zeros((0, 3), np.float32)], [np.zeros((0, 3), np.float32)]
    for block in blocks:
        parts = [block] if len(block) >= 6 else [block[i : i + 1] for i in range(len(block))]
        for part in parts:
            for found, facing in truth_midlines(mask[part].astype(np.int8)).values():
                points.append(found + np.array([part[0], 0, 0], np.float32))
                normals.append(facing)
    return np.concatenate(points), np.concatenate(normals)


def _clear_windows(slices: list[tuple[np.ndarray, np.ndarray]], enough: int = 16) -> np.ndarray:
    """Square windows without membranes, side by side, of the largest size of which there are enough."""
    for side in (64, 48, 32, 24):
        found = []
        for image, clear in slices:
            whole = minimum_filter(clear, size=side, mode="constant", cval=0, origin=-(side // 2))
            for r, c in np.argwhere(whole[:: side // 2, :: side // 2]) * (side // 2):
                found.append(image[r : r + side, c : c + side])
        found = [w for w in found if w.shape == (side, side)]
        if len(found) >= enough:
            return np.stack(found)
    raise JaxmemError("the mask leaves too little background to measure the noise; give a tomogram with more of it")
