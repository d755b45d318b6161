"""Tomograms as a microscope makes them: projected tilt by tilt, with contrast transfer and noise, and back-projected.

Voxel and pixel centres lie at whole coordinates. The middle of a volume, (n - 1) / 2 along each axis, is projected to the middle of
every image. With coordinates from there, a tilt by t about y takes (z, x) to the column x cos t + z sin t; about x it takes (z, y)
to the row y cos t + z sin t. At 0 degrees a projection is the sum along z.
"""

from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from jaxmem.numerics import compiled
from jaxmem.types import Scalar

Axis: TypeAlias = Literal["x", "y"]
"""What the specimen is tilted about."""
Filter: TypeAlias = Literal["ramp", "hamming", "sirt"]
"""How images are weighted before they are back-projected, see `back_project`."""

_REST_ENERGY = 510998.95  # of an electron in eV
_WAVE = 12.264259  # A V^(1/2): Planck's constant over the root of twice the electron's mass and charge
_FALL = 0.035  # cycles per pixel, standard deviation of the ramp's Gaussian edge; IMOD's default


class Microscope(NamedTuple):
    """Settings of a tilt series and of its reconstruction; hashable, static under jit.

    Attributes:
        tilt_low, tilt_high, step: degrees; both ends are recorded if the step divides the range.
        axis: of the tilts.
        defocus: A, positive for underfocus.
        snr: of an image: variance of what is projected over the variance of the noise, both before reconstruction.
        filter, cutoff, iterations: of the reconstruction, see `back_project`.
        b_factor: A^2, of the transfer's envelope.
        phase_flipped: whether the images' signs were corrected.

    Example:
        >>> len(Microscope(tilt_low=-60.0, tilt_high=60.0, step=3.0).angles)
        41
    """

    tilt_low: float = -60.0
    tilt_high: float = 60.0
    step: float = 3.0
    axis: Axis = "y"
    defocus: float = 40000.0
    snr: float = 0.1
    filter: Filter = "ramp"
    cutoff: float = 0.35
    iterations: int = 12
    b_factor: float = 500.0
    phase_flipped: bool = False

    @property
    def angles(self) -> Float[np.ndarray, " tilts"]:
        """Tilts in degrees."""
        return np.arange(self.tilt_low, self.tilt_high + 0.5 * self.step, self.step)


def _rows(padded: Array, at: Array) -> Array:
    """Rows (..., k, n) of (..., m, n) at fractional positions (..., k), interpolated linearly; the first and last row are padding."""
    at = jnp.clip(at + 1.0, 0.0, padded.shape[-2] - 1.0)
    low = jnp.floor(jax.lax.stop_gradient(at))
    share = (at - low)[..., None]
    first = low.astype(int)
    second = jnp.minimum(first + 1, padded.shape[-2] - 1)
    if padded.ndim == 2:
        return (1.0 - share) * padded[first] + share * padded[second]
    plane = jnp.arange(len(padded))[:, None]
    return (1.0 - share) * padded[plane, first] + share * padded[plane, second]


def _offsets(n: int, dtype) -> Float[Array, " n"]:
    """Coordinates of n voxels from their middle."""
    return jnp.arange(n, dtype=dtype) - 0.5 * (n - 1)


def _turned(volume: Array, axis: Axis) -> Array:
    """Rows and columns exchanged where the axis is x, so that the axis lies along rows."""
    return volume if axis == "y" else jnp.swapaxes(volume, 1, 2)


@compiled(static=("axis",))
def project(
    density: Float[Array, "nz ny nx"], angles: Float[Array, " tilts"], axis: Axis = "y"
) -> Float[Array, "tilts ny nx"]:
    """Integrals of a density along the beam, one image for each tilt.

    A ray is followed plane by plane along the axis (z, or the one across the tilt axis) that it crosses most steeply, and
    interpolated linearly within each plane (Joseph 1982, IEEE Trans. Med. Imaging 1, 192). Outside the volume there is nothing.

    Arguments:
        density: any units per voxel.
        angles: degrees.
        axis: the specimen is tilted about "y", the default, or "x".

    Returns:
        The images, in the dtype of the density; differentiable in the density and, but for steps at odd multiples of 45 degrees,
        in the angles.

    Example:
        >>> float(project(jnp.ones((4, 3, 5)), jnp.zeros(1))[0, 1, 2])
        4.0
    """
    volume = jnp.moveaxis(_turned(density, axis), 1, 2)  # z, across, along

    def crossed(planes, slide, slope):
        slope = jnp.where(jnp.abs(slope) > 0.5, slope, 1.0)  # of the ray that is not followed
        column = _offsets(volume.shape[1], volume.dtype)[None]
        at = (column - _offsets(len(planes), volume.dtype)[:, None] * slide) / slope + 0.5 * (planes.shape[1] - 1)
        padded = jnp.pad(planes, ((0, 0), (1, 1), (0, 0)))
        return _rows(padded, at).sum(0) / jnp.abs(slope)

    def image(angle):
        sin, cos = jnp.sin(angle), jnp.cos(angle)
        return jax.lax.cond(
            jnp.abs(cos) >= jnp.abs(sin),
            lambda: crossed(volume, sin, cos),
            lambda: crossed(jnp.swapaxes(volume, 0, 1), cos, sin),
        )

    images = jax.lax.map(image, jnp.deg2rad(angles.astype(density.dtype)))
    return _turned(jnp.swapaxes(images, 1, 2), axis)


def contrast_transfer(
    shape: tuple[int, int],
    voxel_size: Scalar,
    defocus: Scalar,
    *,
    voltage: Scalar = 300.0,
    spherical_aberration: Scalar = 2.7,
    amplitude_contrast: Scalar = 0.07,
    b_factor: Scalar = 500.0,
    phase_flipped: bool = False,
) -> Float[Array, "ny nx"]:
    """The contrast transfer function at the frequencies of `jnp.fft.fft2`; negative at low ones, so that what is dense is dark.

    T(k) = -sin(pi w D k^2 - pi/2 C w^3 k^4 + arcsin A) exp(-B k^2 / 4) with the wavelength w, defocus D, spherical aberration C,
    amplitude contrast A and B factor B (Rohou & Grigorieff 2015, J. Struct. Biol. 192, 216, Equations 2 to 5).

    Arguments:
        shape: of the images.
        voxel_size: edge of a pixel in A.
        defocus: A, positive for underfocus.
        voltage: kV.
        spherical_aberration: mm.
        amplitude_contrast: between 0 and 1.
        b_factor: A^2.
        phase_flipped: whether the sign is made the same at all frequencies.

    Returns:
        The transfer, in the dtype of the defocus.

    Example:
        >>> round(float(contrast_transfer((8, 8), 10.0, 30000.0)[0, 0]), 2)
        -0.07
    """
    dtype = jnp.result_type(defocus, float)
    volts = 1000.0 * voltage
    wave = _WAVE / (volts + volts**2 / (2.0 * _REST_ENERGY)) ** 0.5
    ky, kx = (jnp.fft.fftfreq(n, dtype=dtype) for n in shape)
    k2 = (ky[:, None] ** 2 + kx[None, :] ** 2) / voxel_size**2
    phase = jnp.pi * wave * defocus * k2 - 0.5 * jnp.pi * 1e7 * spherical_aberration * wave**3 * k2**2
    wiggle = jnp.sin(phase + jnp.arcsin(jnp.asarray(amplitude_contrast, dtype)))
    return -(jnp.abs(wiggle) if phase_flipped else wiggle) * jnp.exp(-0.25 * b_factor * k2)


def record(
    key: Key[Array, ""], projections: Float[Array, "tilts ny nx"], snr: Scalar, transfer: Float[Array, "ny nx"]
) -> Float[Array, "tilts ny nx"]:
    """Images of projections: what the microscope transfers, with white noise of one strength in all, as of equal doses.

    Arguments:
        key: random key.
        projections: from `project`.
        snr: mean variance of the images without noise, over the variance of the noise.
        transfer: from `contrast_transfer`, of the same dtype.
    """
    spectrum = jnp.fft.fft2(projections)
    images = jnp.fft.ifft2(spectrum * transfer.astype(spectrum.dtype)[None]).real
    noise = jax.random.normal(key, images.shape, images.dtype)
    return images + jnp.sqrt(images.var((1, 2)).mean() / snr) * noise


def _weights(n: int, kind: Filter, cutoff: Scalar, iterations: int, width: int, dtype) -> Float[Array, " frequencies"]:
    frequency = jnp.fft.rfftfreq(n, dtype=dtype)
    if kind == "hamming":
        taper = 0.54 + 0.46 * jnp.cos(jnp.pi * frequency / cutoff)
        return jnp.where(frequency < cutoff, frequency * taper, 0.0)
    gain = frequency * jnp.exp(-0.5 * (jnp.maximum(frequency - cutoff, 0.0) / _FALL) ** 2)
    if kind == "sirt":
        left = jnp.maximum(1.0 - 1.0 / (width * jnp.where(frequency > 0, frequency, 1.0)), 0.0)
        gain = gain * (1.0 - left**iterations)
    return gain


@compiled(static=("shape", "axis", "filter", "iterations"))
def back_project(
    images: Float[Array, "tilts height width"],
    angles: Float[Array, " tilts"],
    shape: tuple[int, int, int],
    axis: Axis = "y",
    *,
    filter: Filter = "ramp",
    cutoff: Scalar = 0.35,
    iterations: int = 12,
) -> Float[Array, "nz ny nx"]:
    """Weighted back-projection (Radermacher 1992, in Electron Tomography, ed. Frank).

    Images are weighted across the tilt axis at the frequencies f, cycles per pixel: by |f| up to the cutoff, whence a Gaussian
    takes it to zero ("ramp"); by |f| times a Hamming window that ends at the cutoff ("hamming"); or as "ramp" times
    1 - (1 - a / |f|)^n, which leaves of high frequencies what n iterations of SIRT would, a = 1 / width ("sirt"; Zeng 2012,
    Med. Phys. 39, 603). No weight at f = 0: the volume's mean says nothing.

    Arguments:
        images: from `record`, at least as wide as the volume; what they do not show counts as zero.
        angles: degrees, evenly spaced; half a turn of them gives the density's own scale.
        shape: of the volume.
        axis: of the tilts.
        filter: one of the above.
        cutoff: cycles per pixel, 0.5 at most.
        iterations: n of "sirt".

    Returns:
        The volume, in the dtype of the images; dark where they are.
    """
    images = _turned(images, axis)
    depth, along, across = _turned(jnp.zeros(shape, images.dtype), axis).shape
    width = images.shape[2]
    mirrored = jnp.pad(images, ((0, 0), (0, 0), (width // 2, width // 2)), mode="symmetric")
    gain = _weights(mirrored.shape[2], filter, cutoff, iterations, width, images.dtype)
    spectrum = jnp.fft.rfft(mirrored)
    weighted = jnp.fft.irfft(spectrum * gain.astype(spectrum.dtype)[None, None], mirrored.shape[2])
    weighted = jnp.pad(weighted[..., width // 2 : width // 2 + width], ((0, 0), (0, 0), (1, 1)))
    z, x = _offsets(depth, images.dtype)[:, None], _offsets(across, images.dtype)[None]

    def add(volume, tilt):
        image, angle = tilt
        at = x * jnp.cos(angle) + z * jnp.sin(angle) + 0.5 * (width - 1)
        return volume + _rows(image, at), None

    start = jnp.zeros((depth, across, along), images.dtype)
    tilts = jnp.swapaxes(weighted, 1, 2), jnp.deg2rad(angles.astype(images.dtype))
    volume, _ = jax.lax.scan(add, start, tilts)
    return _turned(jnp.moveaxis(volume, 1, 2), axis) * (jnp.pi / len(angles))


@compiled(static=("microscope", "shape"))
def take_tomogram(
    key: Key[Array, ""],
    density: Float[Array, "Nz Ny Nx"],
    voxel_size: Scalar,
    microscope: Microscope,
    shape: tuple[int, int, int],
) -> Float[Array, "nz ny nx"]:
    """The middle of a density as a tomogram shows it: projected, recorded and reconstructed.

    Arguments:
        key: random key.
        density: reaches farther than the tomogram, by as much on both sides, so that tilted images are full.
        voxel_size: A.
        microscope: settings.
        shape: of the tomogram; like the density's, even or odd along each axis.

    Returns:
        The tomogram, in the density's dtype; what is dense is dark.
    """
    angles = jnp.asarray(microscope.angles, density.dtype)
    projections = project(density, angles, microscope.axis)
    transfer = contrast_transfer(
        (projections.shape[1], projections.shape[2]), voxel_size, jnp.asarray(microscope.defocus, density.dtype),
        b_factor=microscope.b_factor, phase_flipped=microscope.phase_flipped,
    )  # fmt: skip
    images = record(key, projections, microscope.snr, transfer)
    margins = [(a - b) // 2 for a, b in zip(density.shape, shape)]
    along = 1 if microscope.axis == "y" else 2
    kept = jax.lax.slice_in_dim(images, margins[along], margins[along] + shape[along], axis=along)
    return back_project(
        kept, angles, shape, microscope.axis,
        filter=microscope.filter, cutoff=microscope.cutoff, iterations=microscope.iterations,
    )  # fmt: skip
