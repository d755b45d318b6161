"""Shared fixtures: shapes are few and sessions long, because compilation is what costs time."""

import ctypes
import gc
import os
import sys
from pathlib import Path

# jax 0.10: older emitters, fewer of LLVM's passes than users run, and one module a program take half the time to compile
if os.environ.get("JAXMEM_TEST_USER_FLAGS") != "1":
    FAST = "--xla_cpu_use_fusion_emitters=false --xla_backend_optimization_level=1 --xla_cpu_parallel_codegen_split_count=1"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FAST}".strip()

# in the environment, so that processes that a test starts find there what others have compiled
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parent.parent / ".cache" / "xla"))

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # its threads would wait for those of the other process

from jaxtyping import install_import_hook

hook = install_import_hook("jaxmem", "beartype.beartype")

import jax  # noqa: E402

jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
# mixed dtypes, ranks that differ and keys used twice are errors
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)

import numpy as np  # noqa: E402
import pytest  # noqa: E402

import jaxmem  # noqa: E402
from jaxmem.io import read_mrc, write_mrc  # noqa: E402
from jaxmem.types import Tomogram  # noqa: E402

gc.set_threshold(100_000, 20, 100)  # tracing makes millions of small objects, few of them in cycles

PACKAGE = Path(jaxmem.__file__).parent
MOST_MEMORY = 1.75e9  # bytes of a process; programs that JAX keeps take megabytes each, those of the whole way 0.8 GB


FIRST = (
    "pipeline", "gradients", "notebooks", "resume", "cli", "density", "match", "viewer", "odd",
    "loops", "ellipse", "contract", "surface", "gp", "closing", "unet",
)  # fmt: skip
"""Files of tests that take longest begin, so that no process waits for the other at the end; those that compile alike follow each other."""


def pytest_collection_modifyitems(items):
    order = {f"test_{name}": k for k, name in enumerate(FIRST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))


def resident() -> int:
    """Bytes that this process holds; 0 where the system does not say."""
    pages = Path("/proc/self/statm")
    return int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if pages.exists() else 0


def give_back() -> None:
    """Return memory that is free within this process to the system."""
    gc.collect()
    if sys.platform == "linux":
        getattr(ctypes.CDLL(None), "malloc_trim", lambda _: 0)(0)


RUN_LONG = {"cli", "density", "match", "notebooks", "odd", "pipeline", "resume", "viewer"}
"""Files of tests whose programs take longer to run than to compile."""


@pytest.fixture(autouse=True, scope="module")
def programs_are_compiled_fast(request):
    """Without XLA's optimisation, where programs run once; with what little the flags above leave elsewhere."""
    plain = os.environ.get("JAXMEM_TEST_USER_FLAGS") == "1" or request.path.stem.removeprefix("test_") in RUN_LONG
    if jax.config.read("jax_disable_most_optimizations") == plain:
        jax.config.update("jax_disable_most_optimizations", not plain)
        jax.clear_caches()  # programs of both kinds round differently, and one that is kept would be taken for the other


@pytest.fixture(autouse=True)
def programs_are_dropped():
    """Drop compiled programs between tests once they fill the memory; the files of the cache stay."""
    yield
    if resident() > MOST_MEMORY:
        give_back()
    if resident() > MOST_MEMORY:
        jax.clear_caches()
        give_back()


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
