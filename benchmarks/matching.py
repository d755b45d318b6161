"""Linking without learning: the nearest free end, and matching of least total cost; what the linker is measured against."""

import networkx
import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from jaxmem.grouping.rl.linker.environment import LinkTask


def nearest_ends(task: LinkTask, reach: float) -> Int[np.ndarray, " segments"]:
    """Join the two free ends that are nearest to each other, again and again.

    Arguments:
        task: one slice.
        reach: pixels; ends further apart are not joined.

    Returns:
        The group of each segment, 1...m; 0 for padding.
    """
    place = np.asarray(task.ends.place)
    free = np.repeat(np.asarray((task.segments.length > 0) & ~task.segments.closed), 2)
    gap = np.linalg.norm(place[:, None] - place[None], axis=-1)
    a, b = np.nonzero(np.triu(free[:, None] & free[None] & (gap <= reach), 1))
    links: list[tuple[int, int]] = []
    for k in np.argsort(gap[a, b], kind="stable"):
        if free[a[k]] and free[b[k]]:
            free[a[k]] = free[b[k]] = False
            links.append((int(a[k]), int(b[k])))
    return groups(task, links)


def best_matching(task: LinkTask, gain: Float[np.ndarray, "ends partners"]) -> Int[np.ndarray, " segments"]:
    """The links with the greatest total gain such that no end has two (Edmonds 1965, by NetworkX).

    Arguments:
        task: one slice.
        gain: of linking each end to each of its partners, against leaving it alone; -inf where that is out of the question.
            The gain of a link is the sum of what it is worth to both ends, -6 where an end does not know the other.

    Returns:
        The group of each segment, 1...m; 0 for padding.
    """
    to, known = np.asarray(task.partners.end), np.asarray(task.partners.valid) & np.isfinite(gain)
    worth = {(int(e), int(to[e, k])): float(gain[e, k]) for e, k in zip(*np.nonzero(known))}
    graph = networkx.Graph()
    for (e, other), value in worth.items():
        both = value + worth.get((other, e), -6.0)
        if both > 0:
            graph.add_edge(e, other, weight=both)
    return groups(task, list(networkx.max_weight_matching(graph)))


def gain_from_cost(task: LinkTask, most: float) -> Float[np.ndarray, "ends partners"]:
    """The gain of links from gap and turning alone: what is left of `most` pixels of cost on either side."""
    return most - np.asarray(task.partners.cost)


def groups(task: LinkTask, links: list[tuple[int, int]]) -> Int[np.ndarray, " segments"]:
    """Segments that are linked, directly or through others, are of one group."""
    length = np.asarray(task.segments.length)
    pairs = np.array(links, int).reshape(-1, 2) // 2
    graph = coo_matrix((np.ones(len(pairs)), pairs.T), shape=(len(length),) * 2)
    _, group = connected_components(graph, directed=False)
    return np.where(length > 0, group + 1, 0)
