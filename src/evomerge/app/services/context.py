"""What every service works with."""

from __future__ import annotations

from dataclasses import dataclass

from evomerge.app.db.engine import Database
from evomerge.app.services.bases import Bases
from evomerge.app.services.inspection import Inspection
from evomerge.app.settings import Settings
from evomerge.connectors.registry import Connectors


@dataclass(frozen=True)
class Context:
    """Made once when the service starts, passed to whatever needs it."""

    settings: Settings
    database: Database
    bases: Bases
    inspection: Inspection
    connectors: Connectors
