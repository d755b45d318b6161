"""Time and memory on large tomograms, tiled from simulated ones: `python benchmarks/large.py [PART ...]`."""

from pathlib import Path

import numpy as np

TILE = (112, 224, 224)
SEEDS = range(401, 409)


def tiled(tiles: tuple[int, int, int], folder: Path) -> tuple[np.ndarray, int]:
    """A tomogram of so many simulated ones along z, y and x, some mirrored, and the number of its membranes."""
    import jax

    from jaxmem.simulate import VolumeModel, simulate_tomogram

    made = []
    for seed in SEEDS:
        path = folder / f"tile-{seed}.npz"
        if not path.exists():
            one = simulate_tomogram(jax.random.key(seed), VolumeModel(shape=TILE, candidates=14))
            np.savez(path, data=np.asarray(one.data, np.float32), count=int(one.present.sum()))
        with np.load(path) as file:
            made.append((file["data"], int(file["count"])))
    out = np.empty([n * t for n, t in zip(tiles, TILE)], np.float32)
    total = 0
    for k, place in enumerate(np.ndindex(*tiles)):
        data, count = made[k % len(made)]
        turn = (
            slice(None),
            slice(None, None, -1) if k // len(made) & 1 else slice(None),
            slice(None, None, -1) if k // len(made) & 2 else slice(None),
        )
        out[tuple(slice(i * t, (i + 1) * t) for i, t in zip(place, TILE))] = data[turn]
        total += count
    return out, total
