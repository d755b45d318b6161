"""What a tomogram's file says, what the network would see, and what a run will need: `jaxmem info`."""

import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jaxmem.io import oddities, read_volume
from jaxmem.pipeline.choosing import choose, look, membrane_share
from jaxmem.pipeline.keeping.record import Run
from jaxmem.pipeline.needs import estimate, free_memory
from jaxmem.pipeline.reasons import BRIGHT, looks_bright
from jaxmem.pipeline.slices import network_shape
from jaxmem.pipeline.stages import for_tomogram
from jaxmem.pipeline.volume import as_volume
from jaxmem.settings import Config
from jaxmem.unet import load_weights

_BARS = " .:-=+*#%@"  # of the histogram, from none to most


def describe_file(
    source: str | Path,
    *,
    voxel_size: float | None = None,
    level: int | None = None,
    invert: bool = False,
    unsigned: bool = False,
    config: Config | None = None,
) -> Iterator[str]:
    """Lines about a tomogram, as they are found out; a few slices are read, and the network looks at three of them.

    Arguments:
        source: MRC file or OME-Zarr.
        voxel_size, level, invert, unsigned: as in `segment_file`.
        config: settings; the defaults when None.

    Raises:
        JaxmemError: if the file cannot be read.
    """
    config = config or Config()
    _, pixel, _ = load_weights(config.network.weights or None)
    tomogram = as_volume(
        read_volume(source, voxel_size, level=level, pixel_size=pixel, invert=invert, unsigned=unsigned)
    )
    data, size = tomogram.data, tomogram.voxel_size
    nz, ny, nx = data.shape
    yield f"file        {source}"
    yield f"voxels      {nx} x {ny} x {nz} (x, y, z) of {size:.3f} A, {data.dtype}; origin {', '.join(f'{o:.1f}' for o in tomogram.origin)} A"
    where = np.unique(np.linspace(0, nz - 1, 7).round().astype(int))
    values = np.concatenate([np.asarray(data[int(k)], np.float32).ravel() for k in where])
    values = values[np.isfinite(values)]
    if values.size:
        low, high = np.percentile(values, [0.1, 99.9])
        counts, _ = np.histogram(values, 48, (float(low), float(high) if high > low else float(low) + 1.0))
        shown = "".join(_BARS[int(np.ceil((len(_BARS) - 1) * c / counts.max()))] for c in counts)
        yield f"values      {values.min():.4g} to {values.max():.4g}, median {np.median(values):.4g}"
        yield f"histogram   {low:.4g} |{shown}| {high:.4g}"
    found = oddities(tomogram, str(source))
    for one in found:
        yield f"{'stops a run' if one.fatal else 'odd':11s} {one.line}"
    if any(one.fatal for one in found):
        return
    settings, quiet = for_tomogram(config, size), Run(None)
    shares = look(tomogram, settings, quiet)
    chosen = choose(data.shape, shares, settings, quiet)
    seen = network_shape(data.shape[1:], size, chosen.pixel_size, config.preprocess)
    sees = "each slice with its neighbours" if chosen.model.config.slices > 1 else "single slices"
    yield f"network     sees {sees}, {seen[1]} x {seen[0]} pixels of {chosen.pixel_size:.1f} A"
    deep = "" if math.isnan(shares.depth) else f", {100 * shares.depth:.1f} % of them seen with depth"
    yield f"membrane    {100 * shares.single:.1f} % of some single slices{deep}, {100 * shares.inverted:.1f} % of them inverted"
    if looks_bright(shares):
        yield f"odd         {BRIGHT}"
    start = time.perf_counter()
    membrane_share(tomogram, chosen, settings)
    minutes = nz / 5.0 * (time.perf_counter() - start) / 60.0
    needs = estimate(data.shape, memory=free_memory() // 2)
    yield f"a run needs about {needs.memory / 1e9:.1f} GB of memory and {needs.disk / 1e9:.1f} GB of disk; the network takes about {minutes:.1f} minutes, the rest about as long"
