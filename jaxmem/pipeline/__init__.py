"""The stages in order, from a tomogram or a mask to surfaces, and the files of a run."""

from jaxmem.pipeline.command import fit_file as fit_file
from jaxmem.pipeline.command import segment_file as segment_file
from jaxmem.pipeline.config import load_config as load_config
from jaxmem.pipeline.editing.edits import Edit as Edit
from jaxmem.pipeline.editing.edits import read_edits as read_edits
from jaxmem.pipeline.editing.edits import write_edits as write_edits
from jaxmem.pipeline.evaluate import evaluate as evaluate
from jaxmem.pipeline.files import write_run as write_run
from jaxmem.pipeline.masks import fit_mask as fit_mask
from jaxmem.pipeline.match import match_tomogram as match_tomogram
from jaxmem.pipeline.needs import Estimate as Estimate
from jaxmem.pipeline.needs import estimate as estimate
from jaxmem.pipeline.scoring import format_scores as format_scores
from jaxmem.pipeline.stages import segment as segment
from jaxmem.results import MembraneResult as MembraneResult
from jaxmem.results import Result as Result
from jaxmem.results import Surface as Surface
from jaxmem.settings import Config as Config
