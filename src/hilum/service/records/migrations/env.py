"""Run by alembic: brings the tables of the connection that it is given to the newest."""

from alembic import context

from hilum.service.records import tables

context.configure(
    connection=context.config.attributes["connection"], target_metadata=tables.metadata, render_as_batch=True
)
with context.begin_transaction():
    context.run_migrations()
