"""Measurements on the surfaces of a finished run."""

from jaxmem.pipeline.measuring.command import measure_run as measure_run
