"""One self-contained HTML page about a run."""

from jaxmem.report.page import add_scores as add_scores
from jaxmem.report.page import write_report as write_report
