"""The parts of an exploration, in the order of the report."""

from __future__ import annotations

__all__ = ["PARTS", "Part"]

from collections.abc import Callable

from omegaconf import DictConfig

from matdesinne.exploration.design_space import design_space
from matdesinne.exploration.designs import Exploration
from matdesinne.exploration.rules import rules
from matdesinne.exploration.strain import strain
from matdesinne.exploration.transitions.pairs import pairs
from matdesinne.exploration.transitions.section import switching
from matdesinne.reporting.report import Section

Part = Callable[[Exploration, DictConfig], Section]
"""Draws figures and writes tables into ``subject.folder`` and says what they show; its settings stand in the configuration."""

PARTS: tuple[Part, ...] = (design_space, strain, pairs, rules, switching)
