"""Entry point of Alembic: runs the migrations on a given connection."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    version_table="diptych_version",
    transactional_ddl=True,  # SQLite can, though Alembic does not count on it; a failed upgrade leaves nothing
)
context.run_migrations()
