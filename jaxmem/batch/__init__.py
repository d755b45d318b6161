"""Many tomograms: what is to run, running it on workers, what has become of each, and tables over all of them."""

from jaxmem.batch.checking import validate as validate
from jaxmem.batch.planning import plan as plan
from jaxmem.batch.records import Check as Check
from jaxmem.batch.records import Item as Item
from jaxmem.batch.records import Plan as Plan
from jaxmem.batch.records import State as State
from jaxmem.batch.running import run as run
from jaxmem.batch.state import status as status
from jaxmem.batch.tables import write_tables as write_tables
