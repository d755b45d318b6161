"""Walks over lines: every pixel once, never a jump, and the right way where lines meet; a teacher, and what is learnt from it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import ndimage
from skimage.morphology import skeletonize

from jaxmem.grouping.rl.tracing import trace
from jaxmem.grouping.rl.walker.environment import WALKING, begin
from jaxmem.grouping.rl.walker.lessons import judge, junction_table, walk_lesson
from jaxmem.grouping.rl.walker.policy import WalkPolicy, paths_of
from jaxmem.grouping.rl.walker.state import walk_task
from jaxmem.grouping.rl.walker.train import WalkTraining, example_walk, train_walker
from jaxmem.grouping.rl.walker.view import REACH
from jaxmem.grouping.rl.weights import default_linker, load_walker
from jaxmem.simulate.contours import ContourModel, Contours
from jaxmem.types import JaxmemError

SIZE = 48


def picture(*strokes):
    """Lines through whole pixels."""
    line = np.zeros((SIZE, SIZE), bool)
    for (y0, x0), (y1, x1) in strokes:
        n = max(abs(y1 - y0), abs(x1 - x0)) + 1
        line[np.linspace(y0, y1, n).round().astype(int), np.linspace(x0, x1, n).round().astype(int)] = True
    return line


def circle(centre, radius):
    angle = np.linspace(0, 2 * np.pi, 768, endpoint=False)
    return np.asarray(centre) + radius * np.stack([np.sin(angle), np.cos(angle)], -1)


def band(*curves):
    """Curves drawn with a brush of 5 x 5 pixels."""
    line = np.zeros((SIZE, SIZE), bool)
    for curve in curves:
        line[tuple(curve.round().astype(int).T)] = True
    return ndimage.binary_dilation(line, np.ones((5, 5)))


CIRCLES = circle((24, 12.5), 9), circle((24, 32.5), 9)
CASES = {
    "ring": skeletonize(band(CIRCLES[0])),
    "cross": picture(((5, 5), (40, 40)), ((40, 5), (5, 40))),
    "tee": picture(((24, 4), (24, 44)), ((25, 24), (44, 24))),
    "fork": picture(((4, 24), (24, 24)), ((25, 23), (44, 8)), ((25, 25), (44, 40))),
    "border": picture(((0, 0), (0, 47)), ((47, 0), (20, 47))),
    "specks": np.random.default_rng(0).random((SIZE, SIZE)) < 0.03,
    "filled": skeletonize(ndimage.binary_dilation(np.random.default_rng(1).random((SIZE, SIZE)) < 0.03, iterations=4)),
    "one pixel": picture(((7, 9), (7, 9))),
    "nothing": np.zeros((SIZE, SIZE), bool),
}


def begun_at(task, place):
    """The same slice, with the first walk from a given pixel."""
    return task._replace(starts=task.starts.at[0].set(jnp.asarray(place) + REACH))


def walked(line, owners=None, straying=1.0, place=None):
    """Straight on, or with `straying` 0 as the teacher goes: last state, paths, and what was seen at every choice."""
    task = walk_task(line, line.astype(np.float32), owners)
    state, rows, count = example_walk(jax.random.key(0), straying, begun_at(task, place) if place else task)
    paths = [path - REACH for path in paths_of(np.asarray(state.walk), np.asarray(state.order))]
    return state, paths, jax.tree.map(lambda a: np.asarray(a)[: int(count)], rows)


@pytest.fixture(scope="module")
def shipped():
    return judge(load_walker().policy)


@pytest.fixture(scope="module")
def touching():
    """Two circles drawn so thick that they are one band where they touch, with the truth."""
    return walk_lesson(circles(), band(*CIRCLES).astype(int), 5)


def circles():
    yes, no = np.ones((2, 768), bool), np.zeros((1, 48), bool)
    return Contours(np.stack(CIRCLES), yes, yes, yes[:, 0], yes[:, 0], np.zeros((1, 48, 2)), no, np.zeros(()))


@pytest.mark.parametrize("line", CASES.values(), ids=CASES)
def test_every_pixel_once_and_never_a_jump(line, shipped):
    by_network = shipped(walk_task(line, line.astype(np.float32)))
    for paths in (walked(line)[1], paths_of(by_network.walk, by_network.order)):
        assert sum(map(len, paths)) == line.sum()
        assert len({tuple(pixel) for path in paths for pixel in path}) == line.sum()
        assert all((np.abs(np.diff(path, axis=0)).max(1) == 1).all() for path in paths if len(path) > 1)


def test_a_ring_is_one_walk_and_lines_run_from_end_to_end():
    assert len(walked(CASES["ring"])[1]) == 1
    (path,) = walked(picture(((10, 5), (30, 40))))[1]
    assert {tuple(path[0]), tuple(path[-1])} == {(10.0, 5.0), (30.0, 40.0)}


def test_lines_that_cross_are_walked_straight_on():
    for path in walked(CASES["cross"])[1][:2]:
        assert np.abs(path[-1] - path[0]).min() > 30  # from corner to opposite corner


def test_a_walk_that_begins_within_a_line_turns_back():
    state, paths, _ = walked(picture(((5, 5), (5, 40)), ((30, 5), (30, 40))), place=(5, 20))
    assert [len(path) for path in paths] == [36, 36]
    assert (np.abs(np.diff(paths[0], axis=0)).max(1) == 1).all()
    assert np.asarray(state.order).min() < 0 < np.asarray(state.order).max()


def test_the_teacher_keeps_to_its_membrane_where_lines_meet():
    """Two membranes that touch with a bend: straight on, walks change from one to the other."""
    owners = np.where(np.arange(SIZE) < 23, 1, 2) * CASES["cross"]
    owners[21:25, 21:25] = 3 * CASES["cross"][21:25, 21:25]
    for straying, switches in ((0.0, 0), (1.0, 2)):
        state, _, examples = walked(CASES["cross"], owners, straying)
        assert int(state.switches) == switches
        assert (examples.weight == 1.0).any()


def test_circles_that_touch_are_taken_apart(shipped, touching):
    found = shipped(touching)
    sides = sorted(path[:, 1].mean() - REACH for path in paths_of(found.walk, found.order))
    assert sides == [pytest.approx(12.5, abs=1.0), pytest.approx(32.5, abs=1.0)]
    assert junction_table([found])["clear"] == {"junctions": 1, "right": 1.0}
    state, *_ = example_walk(jax.random.key(0), 1.0, touching)
    assert int(state.walk.max()) == 1  # straight on they are a figure of eight


def test_the_view_turns_and_mirrors_with_the_walk():
    """A turned line looks as it did; in a mirror it shows its other hand."""
    line = picture(((24, 4), (24, 24)), ((25, 25), (36, 36)), ((23, 25), (18, 40)))
    seen = []
    for turned, place, hand in ((line, (24, 4), 0), (line.T[::-1], (43, 24), 0), (line[::-1], (23, 4), 1)):
        examples = walked(turned, place=place)[2]
        moves = examples.features[0, examples.allowed[0], hand].astype(float)
        seen.append(moves[np.lexsort(moves.round(2).T)])
    assert len(seen[0]) > 1
    assert np.allclose(seen[0], seen[1], atol=2e-3)
    assert np.allclose(seen[0], seen[2], atol=2e-3)


def test_a_little_training(tmp_path, touching, monkeypatch):
    """On two circles that touch: to draw the usual contours takes long to compile."""
    drawn = jax.tree.map(jnp.asarray, circles())
    monkeypatch.setattr("jaxmem.grouping.rl.walker.train.draw_contours", lambda key, model: drawn)
    config = WalkTraining(ContourModel(size=SIZE), (5,), slices=6, test_slices=1, epochs=30, dropout=0.0)
    card = train_walker(config, tmp_path, lambda _: None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["walker.json", "walker.safetensors"]
    assert card["contested"] > 10
    trained, untrained = load_walker(tmp_path / "walker.safetensors").policy, WalkPolicy(config.width, rngs=nnx.Rngs(0))
    right = [judge(policy)(touching).choices.right.mean() for policy in (untrained, trained)]
    assert right[0] < right[1] == 1.0
    (tmp_path / "none").write_bytes(b"nothing")
    for path, message in ((tmp_path / "none", "cannot be read"), (default_linker(), "another architecture")):
        with pytest.raises(JaxmemError, match=message):
            load_walker(path)


def test_changing_membranes_and_beginning_anew_cost():
    """One choice, after which the walk is on another membrane, and the arm that was left is a walk of its own."""
    rows, columns = np.indices((SIZE, SIZE))
    owners = np.where((rows > 24) & (columns > 24), 2, 1) * CASES["fork"]
    task, key = walk_task(CASES["fork"], CASES["fork"].astype(np.float32), owners), jax.random.key(0)
    # the views are not asked for, and not compiled
    step = jax.jit(lambda state, action: (lambda out: (out[0], *out[2:]))(WALKING.step(key, state, action)))
    state, reward, done = step(begin(task), jnp.asarray(0))
    assert (float(reward), bool(done)) == (pytest.approx(-0.3), False)
    _, reward, done = step(state, jnp.asarray(1))
    assert (float(reward), bool(done)) == (pytest.approx(-1.0 - 0.3), True)


def test_nothing_to_trace():
    assert trace(CASES["nothing"]) == ([], [])
