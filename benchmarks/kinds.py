"""Simulated tomograms of nine kinds, with their truth: `python benchmarks/kinds.py OUT [--only NAME]`.

Writes NAME.mrc.gz (int8, membranes dark), NAME_labels.mrc.gz (1, 2, ... within 25 A of a mid-surface) and NAME_truth.npz
(`points_i` on each mid-surface, zyx voxels, with unit `normals_i`, and `vox`, the voxel size in A). The seeds are fixed.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scenes import Scene
from shapes import Surface, any_way, bent, capsule, ellipsoid, moved, rotation, sac, sheet, tube, turned

from jaxmem.io import write_mrc
from jaxmem.simulate import Microscope, take_tomogram
from jaxmem.types import Tomogram

SHAPE = (96, 192, 192)
ACROSS, ALONG = 64, 8  # voxels that a scene reaches beyond the tomogram, across and along the tilt axis
GREY = 20.0  # grey values of one standard deviation


class Kind(NamedTuple):
    """One simulated tomogram: seed, voxel size in A, microscope, what fills the scene, and whether that is cut."""

    seed: int
    voxel_size: float
    microscope: Microscope
    fill: Callable[[Scene], None]
    cut: bool = False


def body(scene: Scene, radius: float, amplitude: float = 0.06) -> Surface:
    """An ellipsoid with bumps, which have so much of its mean radius."""
    axes = radius * scene.rng.uniform(0.8, 1.15, 3)
    return bent(scene.rng, turned(ellipsoid(axes), any_way(scene.rng)), 2.5 * radius, amplitude * radius)


def bodies(scene: Scene, low: float, high: float, amplitude: float = 0.06) -> Callable[[], Surface]:
    """Makes ellipsoids with bumps and mean radii in that range."""
    return lambda: body(scene, scene.rng.uniform(low, high), amplitude)


def tubes_of(scene: Scene, low: float, high: float) -> Callable[[], Surface]:
    """Makes gently curved tubes of radii in that range that cross the scene lying, much the same way."""
    way = scene.rng.uniform(0, np.pi)

    def one() -> Surface:
        turn = rotation(0, way + scene.rng.uniform(-0.2, 0.2))
        straight = turned(tube(1.4 * width(scene), scene.rng.uniform(low, high)), turn)  # no end is seen
        return bent(scene.rng, straight, 220.0, 7.0)

    return one


def sac_of(scene: Scene) -> Surface:
    """A flattened sac, not quite lying."""
    flat = turned(sac(scene.rng.uniform(18, 36), scene.rng.uniform(6, 9)), rotation(1, scene.rng.uniform(-0.6, 0.6)))
    return bent(scene.rng, turned(flat, rotation(0, scene.rng.uniform(0, np.pi))), 110.0, 4.0)


def capsule_of(scene: Scene) -> Surface:
    """A long closed tube, bent, not quite lying."""
    straight = turned(
        capsule(scene.rng.uniform(60, 120), scene.rng.uniform(10, 18)), rotation(1, scene.rng.uniform(-0.1, 0.1))
    )
    return bent(scene.rng, turned(straight, rotation(0, scene.rng.uniform(0, np.pi))), 160.0, 5.0)


def put_sheet(scene: Scene, steepness: float) -> None:
    """A gently bent sheet across the whole scene, so steep in radians."""
    steep = turned(sheet(1.3 * width(scene), 2.0 * scene.shape[0]), rotation(2, steepness))
    way = turned(steep, rotation(0, scene.rng.uniform(0.0, np.pi)))
    curved = bent(scene.rng, way, 260.0, 9.0)
    scene.put(moved(curved, (scene.shape - 1) / 2 + scene.rng.uniform(-20, 20, 3) * [0, 1, 1]))


def width(scene: Scene) -> float:
    """Diagonal of the scene seen from above."""
    return float(np.hypot(*(scene.shape + 2 * scene.margin)[1:]))


def vesicles(scene: Scene) -> None:
    scene.scatter(bodies(scene, 20, 36), 40)
    scene.pair(bodies(scene, 14, 24), 60, (12.5, 37.0))
    scene.stud(0.5, 30.0)
    scene.dissolve(400, (30.0, 60.0))


def tubes(scene: Scene) -> None:
    scene.scatter(tubes_of(scene, 9, 17), 70, 8.0)
    scene.scatter(bodies(scene, 12, 20), 60)
    scene.stud(0.4, 35.0)
    scene.dissolve(300, (35.0, 70.0))


def crowded(scene: Scene) -> None:
    scene.scatter(bodies(scene, 14, 34, 0.09), 60, 4.0)
    scene.pair(bodies(scene, 12, 18), 60, (8.5, 25.0))
    scene.stud(1.0, 35.0)
    scene.dissolve(1800, (30.0, 70.0), 20.0)


def sacs(scene: Scene) -> None:
    scene.scatter(lambda: sac_of(scene), 200, 5.0)
    scene.scatter(bodies(scene, 8, 13), 30)
    scene.stud(0.6, 35.0)
    scene.dissolve(300, (35.0, 80.0))


def nested(scene: Scene) -> None:
    scene.scatter(bodies(scene, 20, 36), 60)
    scene.nest(lambda size: body(scene, size), 0.6)
    scene.stud(0.5, 40.0)
    scene.dissolve(300, (40.0, 80.0))


def coarse(scene: Scene) -> None:
    put_sheet(scene, 1.5)
    scene.scatter(bodies(scene, 10, 26), 60)
    scene.stud(1.0, 50.0)
    scene.dissolve(400, (50.0, 90.0))


def noisy(scene: Scene) -> None:
    scene.scatter(bodies(scene, 15, 34), 40)
    scene.scatter(tubes_of(scene, 8, 11), 20, 8.0)
    scene.stud(0.5, 35.0)
    scene.dissolve(300, (35.0, 70.0))


def across(scene: Scene) -> None:
    put_sheet(scene, 1.2)
    scene.scatter(tubes_of(scene, 9, 13), 20, 8.0)
    scene.scatter(bodies(scene, 12, 28), 50)
    scene.stud(0.5, 35.0)
    scene.dissolve(400, (35.0, 80.0))


def cell(scene: Scene) -> None:
    put_sheet(scene, 1.5)
    scene.scatter(lambda: capsule_of(scene), 60, 6.0)
    scene.scatter(bodies(scene, 10, 22), 40)
    scene.stud(0.4, 35.0)
    scene.dissolve(500, (35.0, 70.0))


KINDS = {
    "vesicles_8A": Kind(1, 8.0, Microscope(
        defocus=25000.0, snr=0.15, filter="hamming", cutoff=0.5, b_factor=800.0, phase_flipped=True), vesicles),
    "tubes_10A": Kind(2, 10.0, Microscope(step=2.0, defocus=30000.0, snr=0.1, b_factor=1000.0), tubes),
    "crowded_12A": Kind(3, 12.0, Microscope(
        tilt_low=-54.0, tilt_high=54.0, defocus=40000.0, snr=0.4, filter="hamming", cutoff=0.5, b_factor=1500.0), crowded, True),
    "sacs_14A": Kind(4, 14.0, Microscope(
        tilt_low=-48.0, tilt_high=66.0, step=2.0, defocus=50000.0, snr=0.08, filter="sirt", b_factor=2500.0), sacs),
    "nested_16A": Kind(5, 16.0, Microscope(
        tilt_low=-66.0, tilt_high=66.0, defocus=45000.0, snr=0.2, b_factor=3000.0, phase_flipped=True), nested),
    "coarse_20A": Kind(6, 20.0, Microscope(step=2.0, defocus=60000.0, snr=0.4, filter="hamming", cutoff=0.5, b_factor=6000.0), coarse, True),
    "noisy_14A": Kind(7, 14.0, Microscope(
        tilt_low=-45.0, tilt_high=45.0, defocus=35000.0, snr=0.02, filter="sirt", b_factor=2500.0), noisy),
    "cell_12A": Kind(9, 12.0, Microscope(
        tilt_low=-57.0, tilt_high=57.0, defocus=32000.0, snr=0.12, b_factor=1500.0), cell, True),
    "axis_x_13A": Kind(8, 13.0, Microscope(axis="x", defocus=20000.0, snr=0.12, b_factor=2000.0, phase_flipped=True), across, True),
}  # fmt: skip


def make(kind: Kind) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Tomogram and labels, int8, and the truth's arrays."""
    margin = (0, ALONG, ACROSS) if kind.microscope.axis == "y" else (0, ACROSS, ALONG)
    scene = Scene(np.random.default_rng(kind.seed), SHAPE, kind.voxel_size, margin, kind.cut)
    kind.fill(scene)
    density = jnp.asarray(scene.density())
    tomogram = np.asarray(take_tomogram(jax.random.key(kind.seed), density, kind.voxel_size, kind.microscope, SHAPE))
    grey = np.clip(GREY * (tomogram - tomogram.mean()) / tomogram.std(), -127, 127).round().astype(np.int8)
    labels, truth = scene.truth()
    return grey, labels, {"vox": np.array(kind.voxel_size), **truth}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", choices=KINDS, metavar="NAME")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for name in [args.only] if args.only else KINDS:
        start = time.perf_counter()
        grey, labels, truth = make(KINDS[name])
        like = Tomogram(grey, KINDS[name].voxel_size)
        write_mrc(args.out / f"{name}.mrc.gz", grey, like)
        write_mrc(args.out / f"{name}_labels.mrc.gz", labels, like)
        np.savez_compressed(args.out / f"{name}_truth.npz", **truth)
        print(f"{name}: {labels.max()} membranes, {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
