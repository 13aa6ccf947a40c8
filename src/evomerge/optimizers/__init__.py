"""Propose candidates. Ask/tell over numpy and cma; no I/O, no torch, no HTTP, no database."""

from evomerge.optimizers.base import Best, Optimizer
from evomerge.optimizers.candidate import Candidate, FloatArray
from evomerge.optimizers.errors import (
    InvalidParameterError,
    OptimizerError,
    ProtocolError,
    ReplayMismatchError,
)
from evomerge.optimizers.evo_merging import Cma, EvoMerging
from evomerge.optimizers.fixed import BaseAlone, BestExpert, RuleGrid, UniformAverage
from evomerge.optimizers.lorahub import LoraHub
from evomerge.optimizers.parameters import (
    DenoisingParameters,
    EvoMergingParameters,
    ScalingParameters,
)
from evomerge.optimizers.preselection import Preselection
from evomerge.optimizers.probe import PROBE
from evomerge.optimizers.pso import ParticleSwarm
from evomerge.optimizers.random_search import RandomSearch
from evomerge.optimizers.replay import OpenGeneration, RecordedEvaluation, replay

__all__ = [
    "PROBE",
    "BaseAlone",
    "Best",
    "BestExpert",
    "Candidate",
    "Cma",
    "DenoisingParameters",
    "EvoMerging",
    "EvoMergingParameters",
    "FloatArray",
    "InvalidParameterError",
    "LoraHub",
    "OpenGeneration",
    "Optimizer",
    "OptimizerError",
    "ParticleSwarm",
    "Preselection",
    "ProtocolError",
    "RandomSearch",
    "RecordedEvaluation",
    "ReplayMismatchError",
    "RuleGrid",
    "ScalingParameters",
    "UniformAverage",
    "replay",
]
