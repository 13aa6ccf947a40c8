"""Experts known by their API: their definitions, answers, calls, and the names of merged models."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
_BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    with op.batch_alter_table("experts") as experts:
        experts.alter_column("base", existing_type=sa.String(255), nullable=True)
        experts.alter_column("path", existing_type=sa.Text(), nullable=True)
        experts.add_column(sa.Column("definition", _JSON, nullable=True))
    with op.batch_alter_table("pools") as pools:
        pools.alter_column("base", existing_type=sa.String(255), nullable=True)
    op.add_column("jobs", sa.Column("gathered", _JSON, nullable=True))
    _answers()
    _calls()
    _models()


def downgrade() -> None:
    for table in ("models", "calls", "answers"):
        op.drop_table(table)
    op.drop_column("jobs", "gathered")
    # What has no base or no folder cannot be told of in the earlier schema.
    op.execute("DELETE FROM pools WHERE base IS NULL")
    op.execute("DELETE FROM experts WHERE base IS NULL OR path IS NULL")
    with op.batch_alter_table("pools") as pools:
        pools.alter_column("base", existing_type=sa.String(255), nullable=False)
    with op.batch_alter_table("experts") as experts:
        experts.drop_column("definition")
        experts.alter_column("path", existing_type=sa.Text(), nullable=False)
        experts.alter_column("base", existing_type=sa.String(255), nullable=False)


def _answers() -> None:
    op.create_table(
        "answers",
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("answer", _JSON, nullable=True),
        sa.Column("failure", _JSON, nullable=True),
        sa.Column("owner", sa.String(128), nullable=True),
        sa.Column("lease_until", sa.Float(), nullable=True),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_answers"),
    )


def _calls() -> None:
    op.create_table(
        "calls",
        sa.Column("id", _BIG_ID, autoincrement=True, nullable=False),
        sa.Column("job_id", sa.String(40), nullable=False),
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("requests", sa.Integer(), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("usd", sa.Float(), nullable=False),
        sa.Column("settled", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name="fk_calls_job_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_calls"),
    )
    op.create_index("ix_calls_job_id", "calls", ["job_id"])


def _models() -> None:
    op.create_table(
        "models",
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("job_id", sa.String(40), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name="fk_models_job_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("name", name="pk_models"),
    )
    op.create_index("ix_models_job_id", "models", ["job_id"])
