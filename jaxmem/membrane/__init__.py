"""The fit of one membrane: anchors, learning of amplitude and noise, an implicit function that outvotes spurious points (paper, 5.2).

Everything is pure and written for one membrane: compile it, batch it over membranes with `jax.vmap`, differentiate it.
"""

from jaxmem.membrane.fit import MembraneFit as MembraneFit
from jaxmem.membrane.fit import MembraneInfo as MembraneInfo
from jaxmem.membrane.fit import evaluate as evaluate
from jaxmem.membrane.fit import fit_membrane as fit_membrane
from jaxmem.membrane.learning import AMPLITUDE as AMPLITUDE
from jaxmem.membrane.learning import EXACT_ROWS as EXACT_ROWS
from jaxmem.membrane.learning import LEARN_ROWS as LEARN_ROWS
from jaxmem.membrane.learning import Learned as Learned
from jaxmem.membrane.learning import Problem as Problem
from jaxmem.membrane.learning import learn as learn
from jaxmem.membrane.learning import solve as solve
from jaxmem.membrane.surface import Surface as Surface
