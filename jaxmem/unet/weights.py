"""Weights as safetensors with the architecture in the header: no code is run to read them."""

import hashlib
import json
from dataclasses import asdict
from importlib import resources
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from jaxmem.checkpoints import flatten, unflatten
from jaxmem.types import JaxmemError
from jaxmem.unet.model import UNet, UNetConfig

_SCALE = ".scale"  # ends the name of the steps of an array that is stored in bytes


def default_weights(flat: bool = False) -> Path:
    """Path of the weights that come with the package: of a network that sees neighbouring slices, or of one for single slices.

    Arguments:
        flat: for an input of a few slices.
    """
    name = "slice" if flat else "depth"
    return Path(str(resources.files("jaxmem") / "unet" / "weights" / f"{name}.safetensors"))


def save_weights(path: Path, model: UNet, pixel_size: float, small: bool = False) -> None:
    """Write a model.

    Arguments:
        path: file.
        model: the network.
        pixel_size: A, the sampling it was trained at.
        small: kernels in bytes, in steps of a 127th of each output channel's largest weight: a quarter of the size.
    """
    header = {"config": json.dumps(asdict(model.config)), "pixel_size": str(pixel_size)}
    arrays = flatten(nnx.state(model, nnx.Param).to_pure_dict())
    save_file(_in_bytes(arrays) if small else arrays, path, metadata=header)


def _in_bytes(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays of two axes or more in whole steps, and the steps of each of the last axis; the others in half precision."""
    out = {}
    for name, array in arrays.items():
        if array.ndim < 2:
            out[name] = np.asarray(array, np.float16)
            continue
        step = np.maximum(np.abs(array).max(tuple(range(array.ndim - 1))), 1e-8) / 127.0
        out[name] = np.round(array / step).astype(np.int8)
        out[name + _SCALE] = step.astype(np.float32)
    return out


def _in_numbers(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What `_in_bytes` was made from, nearly; anything else as it is."""
    found = {}
    for name, array in arrays.items():
        if not name.endswith(_SCALE):
            found[name] = array * arrays[name + _SCALE] if name + _SCALE in arrays else array
    return found


def load_weights(path: str | Path | None = None, flat: bool = False) -> tuple[UNet, float, str]:
    """Read a model; it computes in single precision, also where the file holds half, or bytes.

    Arguments:
        path: safetensors file; the package's own when None.
        flat: of the package's own, the one for an input of a few slices.

    Returns:
        The model, the pixel size in A it was trained at, and the file's SHA-256.

    Raises:
        JaxmemError: if the file is missing, unreadable, or of another architecture.
    """
    path = Path(path) if path is not None else default_weights(flat)
    try:
        with safe_open(path, "numpy") as file:
            header = file.metadata() or {}
            arrays = _in_numbers({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 - not a dict
        config = UNetConfig(**json.loads(header["config"]))
        pixel_size = float(header["pixel_size"])
        if config.classes != 3:
            raise ValueError(f"{config.classes} classes instead of 3")
        model = nnx.eval_shape(lambda: UNet(config, nnx.Rngs(0)))
        graph, state = nnx.split(model)
        single = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), unflatten(state.to_pure_dict(), arrays))
        nnx.replace_by_pure_dict(state, single)
    except (OSError, SafetensorError) as error:
        raise JaxmemError(
            f"{path}: cannot be read as weights ({error}); give a .safetensors file by `jaxmem train`"
        ) from None
    except (KeyError, TypeError, ValueError) as error:
        raise JaxmemError(
            f"{path}: weights of another architecture ({error}); train them with `jaxmem train`"
        ) from None
    return nnx.merge(graph, state), pixel_size, hashlib.sha256(path.read_bytes()).hexdigest()
