import numpy as np
import pytest

from jaxmem import metrics
from jaxmem.points import sphere_directions


def test_slice_wise_dice():
    truth, found = np.zeros((3, 4, 4), bool), np.zeros((3, 4, 4), bool)
    truth[0, :2], found[0, :2] = True, True
    truth[1, :2], found[1, 1:3] = True, True
    assert metrics.slice_dice(found, truth)[:2].tolist() == [1.0, 0.5]
    assert np.isnan(metrics.slice_dice(found, truth)[2])
    assert metrics.dice(np.zeros(3, bool), np.zeros(3, bool)) == 1.0


def test_matching_names_what_is_missed_and_invented():
    truth, found = np.zeros((1, 6, 12), int), np.zeros((1, 6, 12), int)
    truth[0, :2], truth[0, 3:, :4], truth[0, 3:, 8:] = 1, 2, 5
    found[0, :2], found[0, 3:, :4], found[0, 5, 5:7] = 7, 3, 9
    matching = metrics.match_instances(found, truth)
    assert sorted(map(tuple, matching.pairs.tolist())) == [(1, 7), (2, 3)]
    assert matching.missed == [5]
    assert matching.invented == [9]
    empty = metrics.match_instances(np.zeros((1, 2, 2), int), truth[:, :2, :2])
    assert empty.missed == [1]


@pytest.mark.parametrize("offset", [0.0, 0.3, 2.0])
def test_distance_has_no_floor_from_the_mesh(offset):
    rng = np.random.default_rng(0)
    u = np.asarray(sphere_directions(10000, 3))
    v = rng.normal(size=(500, 3))
    v /= np.linalg.norm(v, axis=1, keepdims=True)
    distance = metrics.distance_to_surface((30 + offset) * v, 30 * u, u)
    assert np.allclose(distance, offset, atol=0.1)


def test_coverage_of_calibrated_errors():
    rng = np.random.default_rng(1)
    sigma = rng.uniform(0.5, 2.0, 20000)
    assert abs(metrics.coverage(rng.normal(0, sigma), sigma) - 0.95) < 0.01


def test_steps_between_slices_are_the_largest_distances():
    mask = np.zeros((4, 8, 20), bool)
    mask[0, 2, 2:10] = mask[1, 2, 2:14] = mask[3, 2, 2] = True
    assert metrics.steps_between_slices(mask).tolist() == [0.0]  # slice 2 is empty
    mask[2, 2, 2:6] = True
    assert metrics.steps_between_slices(mask).tolist() == [0.0, 8.0, 3.0]


def test_scores_of_classes():
    truth = np.array([[0, 0, 1, 2]])
    scores = metrics.class_scores(np.array([[0, 1, 1, 2]]), truth)
    assert scores["accuracy"] == 0.75
    assert scores["dice"] == {0: pytest.approx(2 / 3), 1: pytest.approx(2 / 3), 2: 1.0}
