"""Handlers of commands on users. Each method is a transaction."""

from __future__ import annotations

import sqlalchemy as sa

from diptych import ORMService
from examples.shop.messages import AddUser, SetRoles
from examples.shop.models import Role, User, user_roles


class UserCommands:
    """Adds users and sets their roles."""

    def __init__(self, orm: ORMService) -> None:
        self.orm = orm

    async def add(self, command: AddUser) -> bool:
        """Raises `DuplicateError` if there is such a user."""
        await self.orm.create(User, name=command.name, full_name=command.full_name)
        return True

    async def set_roles(self, command: SetRoles) -> bool:
        """The result is False without such a user. Roles that are new are added."""
        # The update changes nothing: of two commands that set the roles of one user, the database lets one wait.
        if not await self.orm.update(User, command.name, name=command.name):
            return False
        mine = user_roles.c.user_name == command.name
        linked = await self.orm.execute(sa.select(user_roles.c.role_name).where(mine))
        there, wanted = set(linked.scalars()), set(command.changes.roles)
        if gone := there - wanted:
            of_user = (mine, user_roles.c.role_name.in_(sorted(gone)))
            await self.orm.execute(sa.delete(user_roles).where(*of_user))
        for role in sorted(wanted - there):
            await self.orm.upsert(Role, conflict_on=Role.name, name=role)
        if new := sorted(wanted - there):
            rows = [{"user_name": command.name, "role_name": role} for role in new]
            await self.orm.execute(sa.insert(user_roles), rows)
        return True
