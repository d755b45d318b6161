"""Simulated data: training slices, labelled contours, and whole tomograms with their truth."""

from jaxmem.simulate.contours import ContourModel as ContourModel
from jaxmem.simulate.contours import Contours as Contours
from jaxmem.simulate.contours import draw_contours as draw_contours
from jaxmem.simulate.contours import rasterise as rasterise
from jaxmem.simulate.microscope import Microscope as Microscope
from jaxmem.simulate.microscope import back_project as back_project
from jaxmem.simulate.microscope import contrast_transfer as contrast_transfer
from jaxmem.simulate.microscope import project as project
from jaxmem.simulate.microscope import record as record
from jaxmem.simulate.microscope import take_tomogram as take_tomogram
from jaxmem.simulate.noise import NoiseSpectrum as NoiseSpectrum
from jaxmem.simulate.noise import coloured_noise as coloured_noise
from jaxmem.simulate.noise import detectability as detectability
from jaxmem.simulate.noise import measure_noise as measure_noise
from jaxmem.simulate.noise import noise_power as noise_power
from jaxmem.simulate.profile import MembraneProfile as MembraneProfile
from jaxmem.simulate.profile import measure_profile as measure_profile
from jaxmem.simulate.ranges import SliceModel as SliceModel
from jaxmem.simulate.ranges import matched as matched
from jaxmem.simulate.slices import training_slice as training_slice
from jaxmem.simulate.volumes import SimulatedTomogram as SimulatedTomogram
from jaxmem.simulate.volumes import VolumeModel as VolumeModel
from jaxmem.simulate.volumes import simulate_tomogram as simulate_tomogram
