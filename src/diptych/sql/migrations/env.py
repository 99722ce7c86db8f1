"""Entry point of Alembic: runs the migrations on a given connection, or writes their statements."""

from alembic import context

attributes = context.config.attributes
if context.is_offline_mode():
    context.configure(
        dialect_name=attributes["dialect"],
        version_table="diptych_version",
        literal_binds=True,
        transactional_ddl=False,  # the script has a transaction of its own around it
    )
else:
    context.configure(
        connection=attributes["connection"],
        version_table="diptych_version",
        transactional_ddl=True,  # SQLite can, though Alembic does not count on it; a failed upgrade leaves nothing
    )
context.run_migrations()
