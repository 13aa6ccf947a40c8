"""Forests of expert language models, and their ELMs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    op.create_table(
        "forests",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("seed_path", sa.Text(), nullable=False),
        sa.Column("seed_hash", sa.String(64), nullable=False),
        sa.Column("seed_lineage", _JSON, nullable=False),
        sa.Column("vocabulary_hash", sa.String(64), nullable=False),
        sa.Column("architecture", _JSON, nullable=False),
        sa.Column("ensemble", _JSON, nullable=False),
        sa.Column("metadata", _JSON, nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_forests"),
        sa.UniqueConstraint("name", name="uq_forests_name"),
    )
    op.create_index("ix_forests_seed_hash", "forests", ["seed_hash"])
    op.create_table(
        "forest_elms",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("forest_id", sa.String(40), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("domain", sa.String(128), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("content_hash", sa.String(64), nullable=False),
        sa.Column("lineage", _JSON, nullable=False),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.Column("own_tokens", sa.BigInteger(), nullable=False),
        sa.Column("job_id", sa.String(40), nullable=True),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(
            ["forest_id"], ["forests.id"], name="fk_forest_elms_forest_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_forest_elms"),
        sa.UniqueConstraint("forest_id", "name", name="uq_forest_elms_forest_id"),
    )
    op.create_index("ix_forest_elms_content_hash", "forest_elms", ["content_hash"])


def downgrade() -> None:
    op.drop_table("forest_elms")
    op.drop_table("forests")
