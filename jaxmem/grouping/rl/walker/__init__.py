"""The walker: labelled pixels of a slice in the order of the membranes they lie on (paper, Section 4.1, first phase)."""

from jaxmem.grouping.rl.walker.environment import WALKING as WALKING
from jaxmem.grouping.rl.walker.policy import WalkPolicy as WalkPolicy
from jaxmem.grouping.rl.walker.policy import paths_of as paths_of
from jaxmem.grouping.rl.walker.policy import straight_on as straight_on
from jaxmem.grouping.rl.walker.policy import walk_lines as walk_lines
from jaxmem.grouping.rl.walker.state import WalkTask as WalkTask
from jaxmem.grouping.rl.walker.state import walk_task as walk_task
