"""What the design promises, on a simulated tomogram that no setting was chosen on and no other test looks at."""

import jax
import numpy as np
import pytest

from jaxmem import Tomogram, evaluate, segment
from jaxmem.simulate import VolumeModel, simulate_tomogram

SEED = 401
MODEL = VolumeModel(shape=(64, 128, 128))


@pytest.fixture(scope="module")
def scores():
    made = jax.tree.map(np.asarray, simulate_tomogram(jax.random.key(SEED), MODEL))
    result = segment(Tomogram(made.data, MODEL.voxel_size))
    truth = {int(i) + 1: (made.points[i], made.normals[i]) for i in np.flatnonzero(made.present)}
    assert len(truth) >= 2
    return evaluate(result, made.labels, truth)


def test_every_membrane_is_found_and_none_invented(scores):
    instances = scores["instances"]
    assert instances["missed"] == []
    assert instances["invented"] == []
    assert instances["matched"] == instances["truth"] == instances["found"]


def test_labels_overlap_the_truth_in_every_slice_on_average(scores):
    assert scores["dice"]["mean_slice"] >= 0.75


def test_surfaces_lie_within_a_voxel_of_the_truth(scores):
    assert scores["distance_voxels"]["mean"] <= 1.0


def test_error_bars_hold(scores):
    assert scores["distance_voxels"]["within_95_interval"] >= 0.8


def test_closed_vesicles_are_found_closed(scores):
    assert all(membrane["closed"] for membrane in scores["membranes"])
