"""Solvers: one published algorithm a function, and the tables of upstream's schedulers under their names."""

from refdiff.samplers.sampler import Sampler, from_config
from refdiff.samplers.step import Step

__all__ = ["Sampler", "Step", "from_config"]
