"""The best set of chains out of many walks; lessons, training and the weights that come with the package."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxmem.defaults import FROM_NETWORK, decided
from jaxmem.grouping.rl.linker import linking
from jaxmem.grouping.rl.linker.chains import Chains, best_set, chains_of_walk, is_membrane, sample_chains
from jaxmem.grouping.rl.linker.environment import LINKING, agreement, link_task
from jaxmem.grouping.rl.linker.lessons import lesson, summarised
from jaxmem.grouping.rl.linker.linking import link_segments
from jaxmem.grouping.rl.linker.policy import link_gains
from jaxmem.grouping.rl.linker.train import LinkTraining, draw_lessons, score_table, train_linker
from jaxmem.grouping.rl.weights import blank_policy, load_linker, save_linker
from jaxmem.pipeline import Config
from jaxmem.pipeline.keeping.record import Run
from jaxmem.pipeline.stages import group, midlines
from jaxmem.simulate import ContourModel, draw_contours
from jaxmem.types import JaxmemError

CAPACITY = 16
SMALL = ContourModel(size=96, membranes=(2, 4))
TRAINING = LinkTraining(
    contours=SMALL,
    slices=16,
    judge_slices=8,
    test_slices=4,
    capacity=CAPACITY,
    width=4,
    clone_steps=12,
    ppo_steps=2,
    judge_steps=20,
    batch=4,
    walks=2,
)


@pytest.fixture(scope="module")
def given():
    contours = jax.tree.map(np.asarray, jax.jit(lambda k: draw_contours(k, SMALL))(jax.random.key(5)))
    return contours, lesson(np.random.default_rng(0), contours)


@pytest.fixture(scope="module")
def lessons():
    return draw_lessons(jax.random.key(2), SMALL, 4, CAPACITY)


@pytest.fixture(scope="module")
def tasks(lessons):
    return jax.jit(jax.vmap(link_task))(lessons.segments, lessons.follows, lessons.owner)


def first_of(tree, i=0):
    return jax.tree.map(lambda leaf: leaf[i], tree)


def test_lessons_lie_on_their_contours(given):
    contours, learnt = given
    assert len(learnt.paths) == len(learnt.owner) == len(learnt.closed)
    assert (learnt.owner > 0).sum() >= 2
    for path, owner in zip(learnt.paths, learnt.owner):
        source = contours.points[owner - 1] if owner > 0 else contours.strays[-1 - owner]
        shown = contours.visible[owner - 1] if owner > 0 else contours.stray_visible[-1 - owner]
        away = np.linalg.norm(path[:, None] - source[shown], axis=-1).min(1)
        assert away.max() < 1.6  # scatter of 0.3 pixel
        assert np.abs(np.linalg.norm(np.diff(path, axis=0), axis=1).mean() - 1.0) < 0.5


def test_what_follows_is_of_the_same_membrane_and_mutual(given):
    contours, learnt = given
    ends = np.flatnonzero(learnt.follows >= 0)
    assert len(ends)
    assert np.array_equal(learnt.follows[learnt.follows[ends]], ends)
    assert np.array_equal(learnt.owner[ends // 2], learnt.owner[learnt.follows[ends] // 2])
    for k in range(1, len(contours.present) + 1):
        pieces = np.flatnonzero((learnt.owner == k) & ~np.array(learnt.closed))
        if len(pieces):
            loose = (learnt.follows.reshape(-1, 2)[pieces] < 0).sum()
            assert loose == (0 if contours.closed[k - 1] else 2)


def expert_state(task):
    def advance(carry, _):
        state, alive = carry
        new, _, _, done = LINKING.step(jax.random.key(0), state, LINKING.expert(state))
        return (jax.tree.map(lambda a, b: jnp.where(alive, a, b), new, state), alive & ~done), None

    state, _ = LINKING.init(jax.random.key(0), task)
    return jax.lax.scan(advance, (state, jnp.ones((), bool)), length=40)[0][0]


def test_chains_of_an_expert_are_membranes(tasks):
    """Whole linking are closed, ellipses, and have the length of their pieces; everything of the truth is there."""
    policy = blank_policy(4, nnx.Rngs(0))
    ends = jax.jit(jax.vmap(expert_state))(tasks)
    gain = jax.jit(jax.vmap(lambda t: link_gains(policy, t)))(tasks)
    chains = jax.jit(jax.vmap(chains_of_walk))(tasks, ends.group, ends.linked, gain)
    assert np.isfinite(np.asarray(chains.features)).all()
    assert np.array_equal(chains.members.sum(1), tasks.segments.length > 0)  # each segment is in one chain
    whole = np.asarray(jax.vmap(is_membrane)(tasks, chains))
    share = whole.sum() / np.asarray(chains.present).sum()
    assert share > 0.85  # some follow through ends that are too far, or across what was taken
    size = np.where(chains.members, np.asarray(tasks.segments.length)[:, None], 0.0).sum(-1)
    present = np.asarray(chains.present)
    assert np.allclose(np.exp(np.asarray(chains.features)[present][:, 2]), size[present], rtol=1e-4)
    closed = whole & (np.asarray(chains.features)[..., 0] == 1)
    assert closed.any()
    assert np.median(np.asarray(chains.features)[closed][:, 11]) < 1.0  # a tenth of its size from an ellipse


def test_the_worthiest_chains_that_share_nothing():
    members = jnp.asarray([[1, 1, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 1, 1, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 1]], bool)
    chains = Chains(members, jnp.asarray([True] * 4 + [False]), jnp.zeros((5, 1)))
    group = best_set(chains, jnp.asarray([1.0, 3.0, 2.0, 0.5, 9.0]))
    assert group.tolist() == [2, 1, 1, 0, 0]  # the third chain shares a segment with the second; the last is padding
    assert best_set(chains, jnp.asarray([4.0, 3.0, 2.0, 0.5, 9.0])).tolist() == [1, 1, 2, 2, 0]


def test_how_often_a_chain_was_made(tasks):
    policy, task = blank_policy(4, nnx.Rngs(0)), first_of(tasks)
    chains = jax.jit(lambda k: sample_chains(k, policy, task, 3))(jax.random.key(1))
    members, seen = np.asarray(chains.members), np.asarray(chains.features)
    for k in np.flatnonzero(chains.present):
        equal = (members == members[k]).all(1)
        assert seen[k, -2] == pytest.approx(equal.sum() / 4)
        assert seen[k, -1] == equal[:CAPACITY].any()


def test_lessons_that_cannot_be_drawn():
    with pytest.raises(ValueError, match="1 to 0 segments"):
        draw_lessons(jax.random.key(2), SMALL, 4, 0)


def test_scores_of_the_truth_are_one(lessons):
    table = score_table(np.asarray(lessons.owner) + 2000, lessons)
    assert table["all"]["slices"] == 4
    assert all(row["adjusted_rand"] == row["exact"] == 1.0 for row in table.values())
    alone = score_table(np.broadcast_to(1 + np.arange(CAPACITY), lessons.owner.shape), lessons)
    assert alone["all"]["exact"] < 1.0


class Stopped(Exception):
    pass


def test_training_goes_on_and_its_weights_can_be_read(tmp_path):
    lines = []
    card = train_linker(TRAINING, tmp_path, lines.append)
    assert set(card["greedy"]) == {"examples", "reward"}
    assert card["kept"] in card["greedy"]
    assert card["unseen"]["all"]["slices"] == 4
    assert json.loads((tmp_path / "card.json").read_text())["unseen"] == card["unseen"]
    linker = load_linker(tmp_path / "linker.safetensors")
    assert len(linker.digest) == 64
    save_linker(tmp_path / "again.safetensors", linker.policy, linker.judge, TRAINING.width)
    assert load_linker(tmp_path / "again.safetensors").digest == linker.digest

    def stop(line):
        lines.append(line)
        if line.startswith("reward: going on after 2"):
            raise Stopped

    lines.clear()
    with pytest.raises(Stopped):
        train_linker(TRAINING, tmp_path, stop)
    assert lines[0].startswith("examples: going on after 12")
    assert not any(line.startswith("examples 12/12") for line in lines)  # it is not learnt again
    with pytest.raises(JaxmemError, match="another configuration"):
        train_linker(
            LinkTraining(contours=SMALL, slices=4, judge_slices=4, test_slices=2, capacity=CAPACITY, width=4),
            tmp_path,
            print,
        )


def test_weights_that_are_none(tmp_path):
    (tmp_path / "w.safetensors").write_text("x")
    with pytest.raises(JaxmemError, match="cannot be read"):
        load_linker(tmp_path / "w.safetensors")
    with pytest.raises(JaxmemError, match="cannot be read"):
        load_linker(tmp_path / "none.safetensors")
    from safetensors.numpy import save_file

    save_file({"policy.pair.kernel": np.zeros((2, 2), np.float32)}, tmp_path / "v.safetensors", metadata={"width": "8"})
    with pytest.raises(JaxmemError, match="another architecture"):
        load_linker(tmp_path / "v.safetensors")


def test_the_shipped_linker_on_slices_never_seen():
    third = replace(SMALL, gap_fraction=(0.0, 0.35))  # at most a third of every contour is missing
    linker, draw, scores = load_linker(), jax.jit(lambda k: draw_contours(k, third)), []
    for i in range(12):
        learnt = lesson(np.random.default_rng(i), jax.tree.map(np.asarray, draw(jax.random.key(100 + i))))
        if not 0 < len(learnt.paths) <= CAPACITY:
            continue
        key = jax.random.key(i)
        group = link_segments(key, linker.policy, linker.judge, learnt.paths, (96, 96), learnt.closed)
        segments, _, owner = summarised(learnt, (96, 96), CAPACITY)
        truth = link_task(segments, owner=jnp.asarray(owner))
        scores.append(float(agreement(truth, jnp.asarray(np.pad(group, (0, CAPACITY - len(group)))))))
    assert len(scores) >= 8
    assert np.mean(scores) > 0.95
    assert not len(link_segments(jax.random.key(0), linker.policy, linker.judge, [], (96, 96)))


def test_walker_and_linker_find_the_membranes_of_a_volume(shells):
    """Nested and neighbouring spheres, traced and linked slice by slice, and joined across slices; and a single slice."""
    volume, _ = shells
    config = decided(replace(Config(), grouping=replace(Config().grouping, method="rl")), **FROM_NETWORK)
    for given, count in ((volume > 0, 3), ((volume > 0)[23:24], 3), (np.zeros((7, 64, 96)), 0)):
        run = Run(None)
        probability = given.astype(np.float32)
        line = midlines(probability, 1.3, config, run, faint=False)
        regions, _ = group(line, probability, 1.3, 14.0, config, run)
        assert "grouping: walker and linker in each slice, then across slices" in run.decisions
        assert len(regions) == count
        for region in regions:
            truth = (volume if len(given) > 1 else volume[23])[tuple(line.voxels[region.members].T)]
            assert (truth[truth > 0] == truth.max()).mean() > 0.97


def test_of_very_many_segments_the_longest_are_linked(monkeypatch):
    monkeypatch.setattr(linking, "MOST", 16)
    linker, angle = load_linker(), np.linspace(0.0, 1.5, 45)
    specks = [np.array([[8.0 * k, 2.0], [8.0 * k, 3.0], [8.0 * k, 4.0]]) for k in range(30)]
    ring = [50.0 + 30.0 * np.stack([np.sin(angle + a), np.cos(angle + a)], 1) for a in (0.0, 2.1, 4.2)]
    group = link_segments(jax.random.key(0), linker.policy, linker.judge, [*specks, *ring], (300, 300))
    assert len(set(group[30:])) == 1
    assert len(set(group[:30]) & set(group[30:])) == 0
    assert len(set(group[13:30])) == 17  # the longest 16 are the ring's pieces and the first 13 specks
