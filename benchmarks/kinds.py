"""Simulated tomograms of eight kinds, with their truth, on which no setting was chosen: `python benchmarks/kinds.py OUT [--only NAME]`.

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
import scenes
from scenes import Scene

from jaxmem.io import write_mrc
from jaxmem.simulate import Microscope, take_tomogram
from jaxmem.types import Tomogram

SHAPE = (96, 192, 192)
ACROSS, ALONG = 64, 8  # voxels that a scene reaches beyond the tomogram, across and along the tilt axis
GREY = 20.0  # grey values of one standard deviation


class Kind(NamedTuple):
    """One simulated tomogram: seed, voxel size in A, microscope and what fills the scene."""

    seed: int
    voxel_size: float
    microscope: Microscope
    fill: Callable[[Scene], None]


def bumpy(scene: Scene, low: float, high: float, amplitude: float = 0.06) -> Callable[[], scenes.Surface]:
    """Makes ellipsoids with bumps and mean radii in that range, voxels."""

    def make() -> scenes.Surface:
        radius = scene.rng.uniform(low, high)
        return bumpy_of(scene, radius, amplitude)

    return make


def bumpy_of(scene: Scene, radius: float, amplitude: float = 0.06) -> scenes.Surface:
    """An ellipsoid with bumps."""
    body = scenes.ellipsoid(radius * scene.rng.uniform(0.8, 1.15, 3))
    return scenes.bent(
        scene.rng, scenes.placed(body, np.zeros(3), scenes.any_way(scene.rng)), 2.5 * radius, amplitude * radius
    )


def vesicles(scene: Scene) -> None:
    scene.scatter(bumpy(scene, 18, 36), 12)
    scene.pair(bumpy(scene, 14, 24), 30, (12.5, 37.0))
    scene.stud(0.5, 30.0)
    scene.dissolve(400, (30.0, 60.0))


def long_tube(scene: Scene, radius: float) -> scenes.Surface:
    """A gently curved tube that crosses the scene."""
    length = float(np.hypot(*(scene.shape + 2 * scene.margin)[1:]))
    turn = scenes.about_z(scene.rng.uniform(0, np.pi))
    return scenes.bent(scene.rng, scenes.placed(scenes.tube(length, radius), np.zeros(3), turn), 180.0, 8.0)


def tubes(scene: Scene) -> None:
    scene.scatter(lambda: long_tube(scene, scene.rng.uniform(12, 18)), 30, 8.0)
    scene.scatter(bumpy(scene, 13, 20), 30)
    scene.stud(0.4, 35.0)
    scene.dissolve(300, (35.0, 70.0))


def crowded(scene: Scene) -> None:
    scene.scatter(bumpy(scene, 14, 30, 0.09), 40, 4.0)
    scene.pair(bumpy(scene, 12, 18), 60, (8.5, 25.0))
    scene.stud(1.0, 35.0)
    scene.dissolve(2500, (30.0, 80.0), 20.0)


def sacs(scene: Scene) -> None:
    def flat() -> scenes.Surface:
        radius = scene.rng.uniform(22, 40)
        tilt = scene.rng.uniform(-0.5, 0.5)
        body = scenes.placed(scenes.sac(radius, scene.rng.uniform(6, 9)), np.zeros(3), TIP(tilt))
        turned = scenes.placed(body, np.zeros(3), scenes.about_z(scene.rng.uniform(0, np.pi)))
        return scenes.bent(scene.rng, turned, 110.0, 4.0)

    scene.scatter(flat, 150, 6.0)
    scene.scatter(bumpy(scene, 8, 13), 30)
    scene.stud(0.6, 35.0)
    scene.dissolve(300, (35.0, 80.0))


def TIP(angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0.0, -s], [0.0, 1.0, 0.0], [s, 0.0, c]])


def nested(scene: Scene) -> None:
    scene.scatter(bumpy(scene, 22, 38), 30)
    scene.nest(lambda size: bumpy_of(scene, size), 0.6)
    scene.stud(0.5, 40.0)
    scene.dissolve(300, (40.0, 80.0))


def coarse(scene: Scene) -> None:
    wide_sheet(scene, np.pi / 2)
    scene.scatter(bumpy(scene, 9, 26), 60)
    scene.stud(1.0, 50.0)
    scene.dissolve(400, (50.0, 90.0))


def wide_sheet(scene: Scene, tilt: float) -> None:
    """A gently bent sheet across the whole scene, upright at pi / 2."""
    length = 1.2 * float(np.hypot(*(scene.shape + 2 * scene.margin)[1:]))
    for _ in range(20):
        width = (scene.shape[0] - 20) if tilt > 1 else length
        body = scenes.placed(scenes.sheet(length, width), np.zeros(3))
        body = scenes.placed(body, np.zeros(3), UP(tilt))
        body = scenes.placed(body, np.zeros(3), scenes.about_z(scene.rng.uniform(0.0, np.pi)))
        body = scenes.bent(scene.rng, body, 220.0, 6.0)
        if scene.add(scenes.placed(body, (scene.shape - 1) / 2 + scene.rng.uniform(-20, 20, 3) * [0, 1, 1])):
            return


def UP(angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def noisy(scene: Scene) -> None:
    scene.scatter(bumpy(scene, 15, 34), 40)
    scene.scatter(lambda: long_tube(scene, 9.0), 10, 8.0)
    scene.stud(0.5, 35.0)
    scene.dissolve(300, (35.0, 70.0))


def across(scene: Scene) -> None:
    wide_sheet(scene, np.pi / 2)
    scene.scatter(lambda: long_tube(scene, 11.0), 10, 8.0)
    scene.scatter(bumpy(scene, 12, 28), 50)
    scene.stud(0.5, 35.0)
    scene.dissolve(400, (35.0, 80.0))


KINDS = {
    "vesicles_8A": Kind(1, 8.0, Microscope(step=3.0, defocus=25000.0, snr=0.15, filter="hamming", cutoff=0.5, phase_flipped=True), vesicles),
    "tubes_10A": Kind(2, 10.0, Microscope(step=2.0, defocus=30000.0, snr=0.1), tubes),
    "crowded_12A": Kind(3, 12.0, Microscope(-54.0, 54.0, 3.0, defocus=40000.0, snr=0.1, filter="hamming", cutoff=0.45), crowded),
    "sacs_14A": Kind(4, 14.0, Microscope(-48.0, 66.0, 2.0, defocus=50000.0, snr=0.08, filter="sirt"), sacs),
    "nested_16A": Kind(5, 16.0, Microscope(-66.0, 66.0, 3.0, defocus=45000.0, snr=0.2, phase_flipped=True), nested),
    "coarse_20A": Kind(6, 20.0, Microscope(-60.0, 60.0, 2.0, defocus=60000.0, snr=0.4, cutoff=0.45), coarse),
    "noisy_14A": Kind(7, 14.0, Microscope(-45.0, 45.0, 3.0, defocus=35000.0, snr=0.02, filter="sirt"), noisy),
    "axis_x_13A": Kind(8, 13.0, Microscope(-60.0, 60.0, 3.0, axis="x", defocus=30000.0, snr=0.12, phase_flipped=True), across),
}  # fmt: skip


def make(kind: Kind) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Tomogram and labels, int8, and the truth's arrays."""
    margin = (0, ALONG, ACROSS) if kind.microscope.axis == "y" else (0, ACROSS, ALONG)
    scene = Scene(np.random.default_rng(kind.seed), SHAPE, kind.voxel_size, margin)
    kind.fill(scene)
    density = jnp.asarray(scene.density())
    tomogram = np.asarray(
        take_tomogram(jax.random.key(kind.seed), density, kind.voxel_size, kind.microscope, SHAPE)
    )
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
