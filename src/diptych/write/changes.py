"""Changes of rows, each written together with its row of the change log."""

from __future__ import annotations

from sqlalchemy.exc import NoResultFound
from sqlalchemy.ext.asyncio import AsyncConnection

from diptych.log.append import append
from diptych.log.change import Change, CommandContext
from diptych.sql import execute
from diptych.sql.entity import MappedEntity
from diptych.write import together
from diptych.write.statements import (
    ColumnValues,
    RowValues,
    delete_statement,
    insert_statement,
    row_again,
    update_statement,
)


async def insert(
    connection: AsyncConnection, entity: MappedEntity, values: ColumnValues, context: CommandContext
) -> Change:
    """Adds a row. The change has the state in the database: with defaults and conversions."""
    if values and together.is_possible(connection, entity):
        return await together.insert(connection, entity, values, context)
    after = entity.row(await execute.insert(connection, *insert_statement(entity, values)))
    if entity.is_finished_by_database:
        after = await row_again(connection, entity, after)
    change = Change(entity.describe(connection.dialect), None, after)
    await append(connection, entity, change, context)
    return change


async def update(
    connection: AsyncConnection,
    entity: MappedEntity,
    before: RowValues,
    values: ColumnValues,
    context: CommandContext,
) -> Change:
    """Changes this row, locked by the transaction."""
    if together.is_possible(connection, entity):
        return await together.update(connection, entity, before, values, context)
    statement, parameters = update_statement(entity, before, values)
    changed = await execute.change_row(connection, statement, parameters, entity.table.name)
    after = entity.row(changed.one())
    if entity.is_finished_by_database:
        after = await row_again(connection, entity, after)
    change = Change(entity.describe(connection.dialect), before, after)
    await append(connection, entity, change, context)
    return change


async def delete(
    connection: AsyncConnection, entity: MappedEntity, before: RowValues, context: CommandContext
) -> Change:
    """Deletes this row, locked by the transaction."""
    if together.is_possible(connection, entity):
        return await together.delete(connection, entity, before, context)
    statement, parameters = delete_statement(entity, before)
    deleted = await execute.change_row(connection, statement, parameters, entity.table.name)
    if deleted.rowcount != 1:  # a trigger has kept the row
        raise NoResultFound("No row was found when one was required")
    change = Change(entity.describe(connection.dialect), before, None)
    await append(connection, entity, change, context)
    return change
