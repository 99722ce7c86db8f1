"""Handlers of commands and queries on tags."""

from __future__ import annotations

import sqlalchemy as sa

from demo_app.handlers.book_answers import document_of
from demo_app.messages import GetTag, ListTags, RenameTag, SetTags
from demo_app.models.book import Book, Tag, book_tags
from demo_app.models.book_read_model import BookDocument, TagDocument, TagReadModel
from diptych import Document, ORMService, Page


async def tag_ids_of(title: str, orm: ORMService) -> set[int]:
    """Returns the ids of the tags that the book of this title has."""
    linked = (
        sa.select(book_tags.c.tag_id).join(Book, Book.id == book_tags.c.book_id).where(Book.title == title)
    )
    return set((await orm.execute(linked)).scalars())


async def delete_unused(tag_ids: set[int], orm: ORMService) -> None:
    """Deletes those of the tags that no book has."""
    is_used = sa.exists().where(book_tags.c.tag_id == Tag.id)
    await orm.execute(sa.delete(Tag).where(Tag.id.in_(tag_ids), ~is_used))


class TagCommandHandler:
    """Changes tags in SQL. Each method is a transaction."""

    def __init__(self, orm_service: ORMService) -> None:
        self.orm_service = orm_service

    async def set_tags(self, command: SetTags) -> BookDocument | None:
        # The update changes nothing: of two commands that set the tags of one book, the database lets one wait.
        book = await self.orm_service.update(
            Book, command.title, "title", return_instance=True, title=command.title
        )
        if book is None:
            return None
        wanted = await self._ids_of(command.tags.tags)
        there = await tag_ids_of(command.title, self.orm_service)
        if gone := there - wanted:
            of_book = (book_tags.c.book_id == book.id, book_tags.c.tag_id.in_(gone))
            await self.orm_service.execute(sa.delete(book_tags).where(*of_book))
            await delete_unused(gone, self.orm_service)
        if new := wanted - there:
            rows = [{"book_id": book.id, "tag_id": tag_id} for tag_id in sorted(new)]
            await self.orm_service.execute(sa.insert(book_tags), rows)
        return await document_of(book, self.orm_service)

    async def _ids_of(self, names: list[str]) -> set[int]:
        """Returns the ids of the tags of these names; those that are not there yet are added."""
        known = sa.select(Tag.name, Tag.id).where(Tag.name.in_(names))
        ids = {row.name: row.id for row in (await self.orm_service.execute(known)).all()}
        for name in sorted(set(names) - ids.keys()):
            # Another command may add the same tag at this moment.
            ids[name] = (await self.orm_service.upsert(Tag, conflict_on=Tag.name, name=name)).id
        return set(ids.values())

    async def rename_tag(self, command: RenameTag) -> TagDocument | None:
        tag = await self.orm_service.update(
            Tag, command.name, "name", return_instance=True, name=command.changes.name
        )
        if tag is None:
            return None
        counted = sa.select(sa.func.count()).where(book_tags.c.tag_id == tag.id)
        return TagDocument(tag.name, (await self.orm_service.execute(counted)).scalar_one())


class TagQueryHandler:
    """Answers from the read model."""

    def __init__(self, tags: TagReadModel) -> None:
        self.tags = tags

    async def get_tag(self, query: GetTag) -> Document[TagDocument]:
        return await self.tags.get(query.name)

    async def list_tags(self, query: ListTags) -> Page[TagDocument]:
        return await self.tags.page(
            limit=query.limit, after=query.after, before=query.before, count=query.count
        )
