"""Mid-surfaces of membranes as dense points with normals, about the origin; lengths are voxels and coordinates zyx."""

from typing import NamedTuple

import numpy as np

SPACING = 0.6  # voxels between points, about or less


class Surface(NamedTuple):
    """Points (m, 3) on a mid-surface and the unit normals there, outward where there is an outside."""

    points: np.ndarray
    normals: np.ndarray


def _grid(*lengths: float, spacing: float = SPACING) -> np.ndarray:
    """Coordinates in 0 ... 1 along each length, in steps of the spacing."""
    return np.stack(
        np.meshgrid(*((np.arange(n := int(np.ceil(a / spacing))) + 0.5) / n for a in lengths), indexing="ij"), -1
    )


def _directions(n: int) -> np.ndarray:
    z = 1.0 - 2.0 * (np.arange(n) + 0.5) / n
    angle = np.pi * (3.0 - 5.0**0.5) * np.arange(n)
    return np.stack([z, np.sqrt(1 - z**2) * np.sin(angle), np.sqrt(1 - z**2) * np.cos(angle)], -1)


def ellipsoid(axes: np.ndarray) -> Surface:
    """An ellipsoid with semi-axes zyx about the origin."""
    axes = np.asarray(axes, float)
    u = _directions(int(4 * np.pi * np.sort(axes)[1:].prod() / SPACING**2))
    normals = u / axes
    return Surface(u * axes, normals / np.linalg.norm(normals, axis=1, keepdims=True))


def sac(radius: float, half: float) -> Surface:
    """All points at a distance from a disc that lies across z: two flat faces joined by a round rim."""
    ring = _grid(np.pi * half, 2 * np.pi * (radius + half)).reshape(-1, 2)
    height, turn = np.pi * (ring[:, 0] - 0.5), 2 * np.pi * ring[:, 1]
    out = np.stack([np.sin(height), np.cos(height) * np.sin(turn), np.cos(height) * np.cos(turn)], -1)
    rim = Surface(out * half + radius * np.stack([0 * turn, np.sin(turn), np.cos(turn)], -1), out)
    flat = (_grid(2 * radius, 2 * radius).reshape(-1, 2) - 0.5) * 2 * radius
    flat = flat[np.hypot(*flat.T) < radius]
    faces = [Surface(np.insert(flat, 0, s * half, 1), np.insert(0 * flat, 0, s, 1)) for s in (-1.0, 1.0)]
    return Surface(*(np.concatenate(parts) for parts in zip(rim, *faces)))


def tube(length: float, radius: float) -> Surface:
    """An open tube along x about the origin."""
    at = _grid(length, 2 * np.pi * radius).reshape(-1, 2)
    turn = 2 * np.pi * at[:, 1]
    normals = np.stack([np.sin(turn), np.cos(turn), 0 * turn], -1)
    return Surface(radius * normals + np.array([0.0, 0.0, length]) * (at[:, :1] - 0.5), normals)


def capsule(length: float, radius: float) -> Surface:
    """A tube along x about the origin, closed by half spheres."""
    straight, ball = tube(length, radius), ellipsoid(np.full(3, radius))
    ends = Surface(ball.points + np.sign(ball.points[:, 2:]) * [0.0, 0.0, 0.5 * length], ball.normals)
    return Surface(*(np.concatenate(parts) for parts in zip(straight, ends)))


def sheet(length: float, width: float) -> Surface:
    """A flat piece across z about the origin, along x and y."""
    at = (_grid(width, length).reshape(-1, 2) - 0.5) * [width, length]
    return Surface(np.insert(at, 0, 0.0, 1), np.insert(0 * at, 0, 1.0, 1))


def bent(rng: np.random.Generator, surface: Surface, wavelength: float, amplitude: float, waves: int = 4) -> Surface:
    """The surface in space moved by a few long waves, whose displacements have that root mean square in all.

    Normals turn by the inverse transpose of the derivative.
    """
    points, slope = surface.points.copy(), np.broadcast_to(np.eye(3), (len(surface.points), 3, 3)).copy()
    for k in 2 * np.pi / wavelength * unit(rng.normal(size=(waves, 3))) * rng.uniform(0.6, 1.0, (waves, 1)):
        size, phase = amplitude * (2.0 / waves) ** 0.5 * unit(rng.normal(size=3)), rng.uniform(0, 2 * np.pi)
        angle = surface.points @ k + phase
        points += np.sin(angle)[:, None] * size
        slope += np.cos(angle)[:, None, None] * (size[:, None] * k)
    return Surface(points, unit(np.linalg.solve(np.swapaxes(slope, 1, 2), surface.normals[..., None])[..., 0]))


def unit(x: np.ndarray) -> np.ndarray:
    """Vectors of length 1 along the last axis."""
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def moved(surface: Surface, way: np.ndarray) -> Surface:
    """The surface moved, voxels zyx."""
    return Surface(surface.points + way, surface.normals)


def turned(surface: Surface, turn: np.ndarray) -> Surface:
    """The surface turned about the origin by a matrix."""
    return Surface(surface.points @ turn.T, surface.normals @ turn.T)


def rotation(axis: int, angle: float) -> np.ndarray:
    """Rotation by an angle in radians that leaves that axis, of zyx, as it is."""
    first, second = (a for a in range(3) if a != axis)
    turn = np.eye(3)
    turn[[first, second], [first, second]] = np.cos(angle)
    turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
    return turn


def any_way(rng: np.random.Generator) -> np.ndarray:
    """A random rotation."""
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q * np.linalg.det(q)
