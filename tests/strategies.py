"""What properties are tested on: clouds of points and rotations."""

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

drawn = settings(deadline=None, max_examples=30, derandomize=True, database=None)


def clouds(n, d):
    """Points of any scale, some of them equal, on a line, or all the same."""

    def shaped(points, scale, kind, offset):
        if kind == "equal":
            points = np.broadcast_to(points[:1], points.shape)
        if kind == "line":
            points = points[:, :1] * np.ones(d)
        if kind == "twice":
            points = np.concatenate([points[: -(n // 2) or None], points[: n // 2]])
        return scale * (points + offset)

    grid = arrays(float, (n, d), elements=st.floats(-1.0, 1.0, width=16))
    gauss = st.integers(0, 999).map(lambda seed: np.random.default_rng(seed).normal(size=(n, d)))
    kinds = st.sampled_from(["any", "any", "line", "twice", "equal"])
    return st.builds(shaped, grid | gauss, st.sampled_from([1e-6, 1.0, 1e6]), kinds, st.sampled_from([0.0, 100.0]))


def turn(quaternion):
    """Rotation (3, 3) of four numbers that are not all zero."""
    w, x, y, z = np.asarray(quaternion) / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


TURNS = st.tuples(*[st.floats(-1.0, 1.0, width=16)] * 4).filter(lambda q: np.linalg.norm(q) > 0.1).map(turn)
