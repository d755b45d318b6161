"""Weights as safetensors with the architecture in the header: no code is run to read them."""

import hashlib
import json
from dataclasses import asdict
from importlib import resources
from pathlib import Path

import jax
import jax.numpy as jnp
from flax import nnx
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from jaxmem.checkpoints import flatten, unflatten
from jaxmem.types import JaxmemError
from jaxmem.unet.model import UNet, UNetConfig


def default_weights() -> Path:
    """Path of the weights that come with the package."""
    return Path(str(resources.files("jaxmem") / "unet" / "weights" / "unet.safetensors"))


def save_weights(path: Path, model: UNet, pixel_size: float) -> None:
    """Write a model; `pixel_size` in A is the sampling it was trained at."""
    header = {"config": json.dumps(asdict(model.config)), "pixel_size": str(pixel_size)}
    save_file(flatten(nnx.state(model, nnx.Param).to_pure_dict()), path, metadata=header)


def load_weights(path: str | Path | None = None) -> tuple[UNet, float, str]:
    """Read a model; it computes in single precision, also where the file holds half.

    Arguments:
        path: safetensors file; the package's own when None.

    Returns:
        The model, the pixel size in A it was trained at, and the file's SHA-256.

    Raises:
        JaxmemError: if the file is missing, unreadable, or of another architecture.
    """
    path = Path(path) if path is not None else default_weights()
    try:
        with safe_open(path, "numpy") as file:
            header = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
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
