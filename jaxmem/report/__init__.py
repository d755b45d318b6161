"""One self-contained HTML page about a run."""

from jaxmem.report.measures import add_measures as add_measures
from jaxmem.report.page import add_scores as add_scores
from jaxmem.report.page import write_report as write_report
