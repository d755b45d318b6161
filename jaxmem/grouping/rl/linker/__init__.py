"""The linker: which segments follow one another around a membrane (paper, Section 4.1, second phase)."""

from jaxmem.grouping.rl.linker.chains import ChainJudge as ChainJudge
from jaxmem.grouping.rl.linker.environment import LINKING as LINKING
from jaxmem.grouping.rl.linker.environment import LinkTask as LinkTask
from jaxmem.grouping.rl.linker.environment import agreement as agreement
from jaxmem.grouping.rl.linker.environment import link_task as link_task
from jaxmem.grouping.rl.linker.linking import best_of_walks as best_of_walks
from jaxmem.grouping.rl.linker.linking import learn_and_link as learn_and_link
from jaxmem.grouping.rl.linker.linking import link_segments as link_segments
from jaxmem.grouping.rl.linker.policy import LinkPolicy as LinkPolicy
from jaxmem.grouping.rl.linker.policy import walk_once as walk_once
from jaxmem.grouping.rl.linker.segments import Segments as Segments
from jaxmem.grouping.rl.linker.segments import summarise as summarise
