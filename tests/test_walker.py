"""Walks over lines: every pixel once, never a jump, straight on where lines cross."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from skimage.morphology import skeletonize

from jaxmem.grouping.reinforcement import rollout
from jaxmem.grouping.walker import WALKING, WalkPolicy, paths_of, straight_on, view, walk_lines, walk_task

SIZE = 48
go = jax.jit(walk_lines, static_argnums=0)


def picture(*strokes):
    """Lines through whole pixels."""
    line = np.zeros((SIZE, SIZE), bool)
    for (y0, x0), (y1, x1) in strokes:
        n = max(abs(y1 - y0), abs(x1 - x0)) + 1
        line[np.linspace(y0, y1, n).round().astype(int), np.linspace(x0, x1, n).round().astype(int)] = True
    return line


def ring(radius=14.0):
    angle = np.linspace(0, 2 * np.pi, 600)
    line = np.zeros((SIZE, SIZE), bool)
    line[(24 + radius * np.sin(angle)).round().astype(int), (24 + radius * np.cos(angle)).round().astype(int)] = True
    return skeletonize(line)


def walked(line, policy=straight_on, owners=None):
    task = walk_task(line, line.astype(np.float32), owners)
    return paths_of(*(np.asarray(a) for a in go(policy, task)))


SPECKS = np.random.default_rng(0).random((SIZE, SIZE)) < 0.03
CASES = {
    "ring": ring(),
    "cross": picture(((5, 5), (40, 40)), ((40, 5), (5, 40))),
    "tee": picture(((24, 4), (24, 44)), ((25, 24), (44, 24))),
    "border": picture(((0, 0), (0, 47)), ((47, 0), (20, 47))),
    "specks": SPECKS,
    "full": np.ones((SIZE, SIZE), bool),
    "one pixel": picture(((7, 9), (7, 9))),
    "nothing": np.zeros((SIZE, SIZE), bool),
}


@pytest.mark.parametrize("line", CASES.values(), ids=CASES)
def test_every_pixel_once_and_never_a_jump(line):
    paths = walked(line)
    assert sum(map(len, paths)) == line.sum()
    back = np.zeros_like(line, int)
    for path in paths:
        assert (np.abs(np.diff(path, axis=0)).max(1) == 1).all() if len(path) > 1 else True
        np.add.at(back, tuple(path.astype(int).T), 1)
    assert np.array_equal(back, line.astype(int))


def test_a_ring_is_one_walk_and_an_arc_runs_from_end_to_end():
    assert len(walked(ring())) == 1
    (path,) = walked(picture(((10, 5), (30, 40))))
    assert {tuple(path[0]), tuple(path[-1])} == {(10.0, 5.0), (30.0, 40.0)}


def test_a_walk_from_the_middle_turns_back():
    """A line without ends, cut open: seeds lie within it, and both halves are one path."""
    line = ring()
    line[24, :24] = False
    task = walk_task(line, line.astype(np.float32))
    first = np.asarray(task.first)
    middle = np.zeros_like(first)
    middle[24 + 7, 38 + 7] = 3  # begin opposite the cut
    paths = paths_of(*(np.asarray(a) for a in go(straight_on, task._replace(first=jnp.asarray(first + middle)))))
    assert len(paths[0]) > 0.9 * line.sum()
    assert (np.abs(np.diff(paths[0], axis=0)).max(1) == 1).all()


def test_lines_that_cross_are_walked_straight_on():
    for path in walked(CASES["cross"])[:2]:
        step = path[-1] - path[0]
        assert np.abs(step).min() > 15  # from corner to opposite corner, or to the crossing


def test_the_view_turns_with_the_walk():
    """Whichever way a line runs, the window shows it running the same way, and the line's other side turned alike."""
    seen = []
    for (a, b), spur in [
        (((24, 4), (24, 44)), ((27, 30), (30, 30))),  # along x; the spur lies towards y
        (((4, 24), (44, 24)), ((30, 21), (30, 18))),  # along y; it lies towards -x
        (((24, 44), (24, 4)), ((21, 18), (18, 18))),
    ]:
        line = picture((a, b), spur)
        task = walk_task(line, line.astype(np.float32))
        first = np.where(np.asarray(task.first) > 0, 1, 0)
        first[a[0] + 7, a[1] + 7] = 5
        state, _ = WALKING.init(jax.random.key(0), task._replace(first=jnp.asarray(first)))
        for _ in range(20):
            now = view(state)
            state, *_ = WALKING.step(jax.random.key(0), state, jnp.argmax(straight_on(now)[0]))
        now = view(state)
        assert bool(now.allowed[0])
        assert np.allclose(now.drift[0], [0.0, 1.0], atol=1e-3)
        seen.append(np.asarray(now.window))
    assert np.array_equal(seen[0], seen[1])
    assert np.array_equal(seen[0], seen[2])


def test_changing_membranes_and_beginning_anew_cost():
    line = picture(((10, 4), (10, 43)), ((30, 4), (30, 43)))
    owners = np.where(np.arange(SIZE) < 24, 1, 2)[None] * line
    task = walk_task(line, line.astype(np.float32), owners)
    episode = rollout(jax.random.key(0), WALKING, straight_on, task, 90, greedy=True)
    assert float(episode.reward.sum()) == pytest.approx(-2 * 1.0 - 0.3)
    assert int(episode.alive.sum()) == line.sum() - 2


def test_an_untrained_network_may_walk_too():
    policy = WalkPolicy(8, rngs=nnx.Rngs(0))
    task = walk_task(ring(), ring().astype(np.float32))
    walk, _ = jax.jit(lambda t: walk_lines(policy, t))(task)
    assert np.array_equal(np.asarray(walk) > 0, ring())
