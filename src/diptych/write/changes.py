"""Changes of rows, each written together with its row of the change log."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncConnection

from diptych.log.append import append
from diptych.log.change import Change, CommandContext
from diptych.sql import execute
from diptych.sql.mapped.entity import MappedEntity
from diptych.write import together
from diptych.write.statements import ColumnValues, RowValues, delete_row, insertion, row_again, update_row


async def insert(
    connection: AsyncConnection, entity: MappedEntity, values: ColumnValues, context: CommandContext
) -> Change:
    """Adds a row. The change has the state in the database: with defaults and conversions."""
    if values and together.is_possible(connection, entity):
        return await together.insert(connection, entity, values, context)
    after = entity.row(await execute.insert(connection, *insertion(entity, values)))
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
    after = await update_row(connection, entity, before, values)
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
    await delete_row(connection, entity, before)
    change = Change(entity.describe(connection.dialect), before, None)
    await append(connection, entity, change, context)
    return change
