"""The names that the rest of the package may count on."""

from __future__ import annotations

from evomerge import optimizers

PUBLIC = [
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


def test_public_names() -> None:
    assert optimizers.__all__ == PUBLIC
    assert all(hasattr(optimizers, name) for name in PUBLIC)
