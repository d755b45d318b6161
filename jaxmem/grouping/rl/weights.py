"""Weights as safetensors: the linker's policy and judge in one file, the walker's policy in another."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from jaxmem.checkpoints import flatten, unflatten
from jaxmem.grouping.rl.linker.chains import ChainJudge
from jaxmem.grouping.rl.linker.environment import LINKING, link_task
from jaxmem.grouping.rl.linker.policy import LinkPolicy
from jaxmem.grouping.rl.linker.segments import summarise
from jaxmem.grouping.rl.walker.policy import WalkPolicy
from jaxmem.types import JaxmemError


class Linker(NamedTuple):
    """Trained networks for `linking.link_segments`, and the SHA-256 of their file."""

    policy: LinkPolicy
    judge: ChainJudge
    digest: str


@contextmanager
def _readable(path: Path, what: str) -> Iterator[None]:
    """Problems with a file of weights, in words."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise JaxmemError(f"{path}: cannot be read as weights of a {what} ({error})") from None
    except (KeyError, TypeError, ValueError) as error:
        raise JaxmemError(f"{path}: weights of another architecture than the {what}'s ({error})") from None


def _read(path: Path) -> tuple[int, dict[str, np.ndarray]]:
    """Width of the layers, and arrays by name."""
    with safe_open(path, "numpy") as file:
        width = int((file.metadata() or {})["width"])
        return width, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict


def blank_policy(width: int, rngs: nnx.Rngs) -> LinkPolicy:
    """An untrained policy."""
    _, seen = LINKING.init(jax.random.key(0), link_task(summarise([], (8, 8), 6)))
    return LinkPolicy(seen, width, rngs=rngs)


def blank_judge(width: int, rngs: nnx.Rngs) -> ChainJudge:
    """An untrained judge."""
    return ChainJudge(width, rngs=rngs)


def default_linker() -> Path:
    """Path of the weights that come with the package."""
    return Path(str(resources.files("jaxmem") / "grouping" / "rl" / "trained" / "linker.safetensors"))


def save_linker(path: Path, policy: LinkPolicy, judge: ChainJudge, width: int) -> None:
    """Write both networks; the header holds the width of their layers."""
    both = {name: nnx.state(net, nnx.Param).to_pure_dict() for name, net in (("policy", policy), ("judge", judge))}
    save_file(flatten(both), path, metadata={"width": str(width)})


def load_linker(path: str | Path | None = None) -> Linker:
    """Read the networks.

    Arguments:
        path: safetensors file; the package's own when None.

    Raises:
        JaxmemError: if the file is missing, unreadable, or of another architecture.
    """
    path = Path(path) if path is not None else default_linker()
    with _readable(path, "linker"):
        width, arrays = _read(path)
        policy, judge = blank_policy(width, nnx.Rngs(0)), blank_judge(width, nnx.Rngs(0))
        states = {"policy": nnx.state(policy, nnx.Param), "judge": nnx.state(judge, nnx.Param)}
        read = unflatten({name: state.to_pure_dict() for name, state in states.items()}, arrays)
        for name, state in states.items():
            nnx.replace_by_pure_dict(state, jax.tree.map(jnp.asarray, read[name]))
        nnx.update(policy, states["policy"])
        nnx.update(judge, states["judge"])
    return Linker(policy, judge, hashlib.sha256(path.read_bytes()).hexdigest())


class Walker(NamedTuple):
    """A trained policy for `tracing.trace`, and the SHA-256 of its file."""

    policy: WalkPolicy
    digest: str


def default_walker() -> Path:
    """Path of the weights that come with the package."""
    return Path(str(resources.files("jaxmem") / "grouping" / "rl" / "trained" / "walker.safetensors"))


def save_walker(path: Path, policy: WalkPolicy, width: int) -> None:
    """Write the policy, never half of it; the header holds the width of its layers."""
    partial = path.with_suffix(".partial")
    save_file(flatten(nnx.state(policy, nnx.Param).to_pure_dict()), partial, metadata={"width": str(width)})
    os.replace(partial, path)


def load_walker(path: str | Path | None = None) -> Walker:
    """Read the policy.

    Arguments:
        path: safetensors file; the package's own when None.

    Raises:
        JaxmemError: if the file is missing, unreadable, or of another architecture.
    """
    path = Path(path) if path is not None else default_walker()
    with _readable(path, "walker"):
        width, arrays = _read(path)
        graph, state = nnx.split(nnx.eval_shape(lambda: WalkPolicy(width, rngs=nnx.Rngs(0))), nnx.Param)
        nnx.replace_by_pure_dict(state, jax.tree.map(jnp.asarray, unflatten(state.to_pure_dict(), arrays)))
        policy = nnx.merge(graph, state)
    return Walker(policy, hashlib.sha256(path.read_bytes()).hexdigest())
