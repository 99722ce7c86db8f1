"""Runs the migrations on the connection that it is given; Alembic's own entry point."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    version_table="diptych_version",
    transactional_ddl=True,  # SQLite can, though Alembic does not count on it; a failed upgrade leaves nothing
)
context.run_migrations()
