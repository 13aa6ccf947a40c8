"""Run by alembic: applies the steps on the connection that `evomerge.migrations` hands over."""

from __future__ import annotations

from alembic import context

from evomerge.app.db.models import Table

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Table.metadata,
    compare_type=True,
    # SQLite cannot alter a table in place: later steps copy it.
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
