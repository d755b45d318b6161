"""Shared fixtures: shapes are few and sessions long, because compilation is what costs time."""

import os
from importlib.metadata import version
from pathlib import Path

if version("jax").startswith("0.10."):  # older emitters and fewer of LLVM's passes: half the compilation, and as fast
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false --xla_backend_optimization_level=1")

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # its threads would wait for those of the other process

from jaxtyping import install_import_hook

hook = install_import_hook("jaxmem", "beartype.beartype")

import jax  # noqa: E402

jax.config.update(
    "jax_compilation_cache_dir",
    os.environ.get("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parent.parent / ".cache" / "xla")),
)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)

import numpy as np  # noqa: E402
import pytest  # noqa: E402

import jaxmem  # noqa: E402
from jaxmem.io import read_mrc, write_mrc  # noqa: E402
from jaxmem.types import Tomogram  # noqa: E402

PACKAGE = Path(jaxmem.__file__).parent


@pytest.fixture(scope="session")
def data() -> Path:
    """Real data beside the repository; tests that need them skip where they are missing."""
    for folder in (Path(__file__).parents[1] / "shared" / "data", Path(__file__).parents[2] / "shared" / "data"):
        if folder.is_dir():
            return folder
    pytest.skip("the folder shared/data is not beside the repository")


@pytest.fixture(scope="session")
def phantom() -> tuple[Tomogram, np.ndarray]:
    """A quarter of the bundled phantom with one whole vesicle and part of another, and its labels."""
    where = (slice(8, 76), slice(104, 180), slice(52, 132))
    tomogram = read_mrc(PACKAGE / "data" / "phantom.mrc.gz")
    labels = np.asarray(read_mrc(PACKAGE / "data" / "phantom_labels.mrc.gz").data)[where]
    return tomogram._replace(data=np.asarray(tomogram.data)[where]), labels


@pytest.fixture(scope="session")
def shells() -> tuple[np.ndarray, dict[int, float]]:
    """Two nested hollow spheres and a third beside them, three voxels thick, with caps missing; and their radii."""
    z, y, x = np.indices((48, 64, 96), float)
    volume = np.zeros(z.shape, np.int8)
    radii = {1: 19.0, 2: 10.0, 3: 15.0}
    for value, (centre, radius) in enumerate([((24, 32, 30), 19.0), ((24, 32, 30), 10.0), ((24, 30, 72), 15.0)], 1):
        offset = np.stack([z - centre[0], y - centre[1], x - centre[2]])
        r = np.sqrt((offset**2).sum(0))
        volume[(np.abs(r - radius) <= 1.5) & (np.abs(offset[0]) < 0.75 * radius)] = value
    return volume, radii


@pytest.fixture
def mrc(tmp_path):
    """Write an array as MRC and return its path."""

    def write(values: np.ndarray, voxel_size: float = 14.0, name: str = "in.mrc", **place) -> Path:
        path = tmp_path / name
        write_mrc(path, values, Tomogram(values, voxel_size, **place))
        return path

    return write
