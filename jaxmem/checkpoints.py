"""Pytrees of parameters as safetensors: no code is run to read them."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from jaxmem.types import JaxmemError

T = TypeVar("T")


def flatten(tree) -> dict[str, np.ndarray]:
    """A pytree of arrays as a flat dictionary with dotted names."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(leaf) for path, leaf in leaves}


def unflatten(like, arrays: dict[str, np.ndarray]):
    """The inverse of `flatten`, into the structure of `like`.

    Raises:
        KeyError, ValueError: if a name is missing or a shape differs.
    """
    paths, structure = jax.tree_util.tree_flatten_with_path(like)
    leaves = []
    for path, leaf in paths:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        if arrays[name].shape != leaf.shape:
            raise ValueError(f"{name}: expected shape {leaf.shape}, got {arrays[name].shape}")
        leaves.append(arrays[name])
    return jax.tree_util.tree_unflatten(structure, leaves)


def save_checkpoint(path: Path, state: Any, config: Any) -> None:
    """Write the state of a training, a pytree, with the configuration (a dataclass) it belongs to; never half of it."""
    partial = path.with_suffix(".partial")
    save_file(flatten(state), partial, metadata={"config": json.dumps(asdict(config), sort_keys=True)})
    os.replace(partial, path)


def load_checkpoint(path: Path, like: T, config: Any) -> T:
    """The inverse of `save_checkpoint`, into the structure of `like`.

    Raises:
        JaxmemError: if the checkpoint belongs to another configuration.
    """
    with safe_open(path, "numpy") as file:
        if (file.metadata() or {}).get("config") != json.dumps(asdict(config), sort_keys=True):
            raise JaxmemError(f"{path}: checkpoint of another configuration; remove it or choose another folder")
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    return jax.tree.map(jnp.asarray, unflatten(like, arrays))
