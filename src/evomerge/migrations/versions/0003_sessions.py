"""Sessions of the BMM protocol, and what each key has had scored in them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    op.create_table(
        "sessions",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("caller", sa.String(64), nullable=False),
        sa.Column("preset", sa.String(128), nullable=False),
        sa.Column("query", _JSON, nullable=False),
        sa.Column("spec", _JSON, nullable=False),
        sa.Column("inputs", _JSON, nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_sessions"),
    )
    op.create_index("ix_sessions_caller", "sessions", ["caller", "created_at"])
    op.create_table(
        "quotas",
        sa.Column("caller", sa.String(64), nullable=False),
        sa.Column("evaluations", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("caller", name="pk_quotas"),
    )


def downgrade() -> None:
    op.drop_table("quotas")
    op.drop_table("sessions")
