"""What is measured on surfaces once they are there: thickness, distances, bending, particles on them."""

from jaxmem.measure.bending import curvedness as curvedness
from jaxmem.measure.bending import principal as principal
from jaxmem.measure.bending import shape_index as shape_index
from jaxmem.measure.bending import willmore as willmore
from jaxmem.measure.gaps import contact as contact
from jaxmem.measure.gaps import gap as gap
from jaxmem.measure.gaps import moved_gap as moved_gap
from jaxmem.measure.particles import Particles as Particles
from jaxmem.measure.particles import find_particles as find_particles
from jaxmem.measure.patterns import along_surface as along_surface
from jaxmem.measure.patterns import graph_of as graph_of
from jaxmem.measure.patterns import ripley as ripley
from jaxmem.measure.patterns import ripley_null as ripley_null
from jaxmem.measure.patterns import vertex_areas as vertex_areas
from jaxmem.measure.thickness import Leaflets as Leaflets
from jaxmem.measure.thickness import Transfer as Transfer
from jaxmem.measure.thickness import changes as changes
from jaxmem.measure.thickness import leaflets as leaflets
from jaxmem.measure.thickness import learn_transfer as learn_transfer
from jaxmem.measure.thickness import moments as moments
from jaxmem.measure.thickness import pair as pair
