"""Each Python client's own ways: prepared statements, COPY, LISTEN, transactions, times, and reading a schema."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql.base import PGInspector
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from data_plane.connector.migrations import Migrator, migration_files, seed_files
from data_plane.model.naming import AccessLevel, TenantNames
from tests.conftest import Plane

OWNER, SERVICE, AUTHENTICATED = AccessLevel.OWNER, AccessLevel.SERVICE_ROLE, AccessLevel.AUTHENTICATED
MOMENT = datetime(2026, 3, 29, 1, 30, tzinfo=UTC)
PREPARED = "select count(*) from pg_prepared_statements where statement like 'insert into pages%'"


# psycopg


def test_psycopg(shop: Plane) -> None:
    with psycopg.connect(shop.lease("shop", OWNER).connection_string, autocommit=True) as session:
        session.execute("create table pages (id int primary key, body text, at timestamptz)")
        with session.transaction():
            for number in range(2):
                session.execute("insert into pages values (%s, %s, %s)", [number, "x", MOMENT], prepare=True)
        assert session.execute(PREPARED).fetchone() == (1,)

        with session.cursor() as cursor, cursor.copy("copy pages (id, body) from stdin") as copy:
            copy.write_row((2, "two"))
        with session.cursor().copy("copy (select body from pages order by id) to stdout") as copy:
            assert [row for (row,) in copy.rows()] == ["x", "x", "two"]

        session.execute("listen news")
        session.execute("notify news, 'hello'")
        assert [note.payload for note in session.notifies(timeout=30, stop_after=1)] == ["hello"]

        with session.transaction():
            session.execute("delete from pages")
            raise psycopg.Rollback
        assert session.execute("select count(*) from pages").fetchone() == (3,)

        session.execute("set time zone 'Asia/Tokyo'")
        row = session.execute("select at from pages where id = 0").fetchone()
        assert row is not None
        assert (row[0], row[0].utcoffset().total_seconds() / 3600) == (MOMENT, 9)


# asyncpg


def test_asyncpg(shop: Plane) -> None:
    async def go() -> None:
        session = await asyncpg.connect(shop.lease("shop", OWNER).connection_string)
        await session.execute("create table pages (id int primary key, body text, at timestamptz)")
        insert = await session.prepare("insert into pages values ($1, $2, $3)")
        await insert.executemany([(0, "x", MOMENT), (1, "x", MOMENT)])
        assert await session.fetchval(PREPARED) == 1
        await session.copy_records_to_table("pages", records=[(2, "two")], columns=["id", "body"])
        assert [row["body"] for row in await session.fetch("select body from pages order by id")] == ["x", "x", "two"]

        heard: asyncio.Queue[str] = asyncio.Queue()
        await session.add_listener("news", lambda *found: heard.put_nowait(found[3]))
        await session.execute("notify news, 'hello'")
        assert await asyncio.wait_for(heard.get(), 5) == "hello"
        await session.reset()  # what a pool does between two users
        assert await session.fetchval("select current_user::text") == "proj_shop_owner"

        transaction = session.transaction()
        await transaction.start()
        await session.execute("delete from pages")
        await transaction.rollback()
        assert await session.fetchval("select count(*) from pages") == 3
        assert await session.fetchval("select at from pages where id = 0") == MOMENT
        await session.close()

    asyncio.run(go())


# SQLAlchemy


class Base(DeclarativeBase):
    """Names no schema: the lease's search_path says where tables are."""


class Author(Base):
    __tablename__ = "authors"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.Text, unique=True)
    born: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True))
    mood: Mapped[str] = mapped_column(sa.Enum("fine", "foul", name="mood"), server_default="fine")
    books: Mapped[list["Book"]] = relationship(back_populates="author")


class Book(Base):
    __tablename__ = "books"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(sa.Text, index=True)
    author_id: Mapped[int] = mapped_column(sa.ForeignKey("authors.id", ondelete="cascade"))
    author: Mapped[Author] = relationship(back_populates="books")


def engine_of(shop: Plane, level: AccessLevel) -> sa.Engine:
    return sa.create_engine(shop.lease("shop", level).connection_string)


def shape(metadata: sa.MetaData, dialect: sa.Dialect) -> dict[str, Any]:
    return {
        table.name: (
            table.schema,
            {
                column.name: (column.type.compile(dialect), column.nullable, column.primary_key)
                for column in table.columns
            },
            sorted(str(key.target_fullname) for key in table.foreign_keys),
            sorted(str(index.name) for index in table.indexes),
        )
        for table in metadata.sorted_tables
    }


def test_sqlalchemy_makes_its_tables_and_each_level_uses_them(shop: Plane) -> None:
    owner = engine_of(shop, OWNER)
    Base.metadata.create_all(owner)
    with Session(engine_of(shop, SERVICE)) as session:
        session.add(Author(name="Ada", born=MOMENT, books=[Book(title="Notes"), Book(title="Letters")]))
        session.commit()
        found = session.scalars(sa.select(Author).join(Author.books).where(Book.title == "Notes")).one()
        assert (found.name, found.born, found.mood) == ("Ada", MOMENT, "fine")
    with Session(engine_of(shop, AUTHENTICATED)) as session:
        assert session.scalars(sa.select(Author)).all() == []  # row-level security is on, and no policy there yet
        session.add(Author(name="Eve"))
        with pytest.raises(sa.exc.ProgrammingError, match="violates row-level security policy"):
            session.commit()
    assert shop.rows("select tableowner from pg_tables where tablename in ('authors', 'books')") == [
        ("proj_shop_owner",),
        ("proj_shop_owner",),
    ]


def test_sqlalchemy_reads_back_the_schema_that_it_made_and_nothing_else(shop: Plane) -> None:
    """What Alembic's autogenerate compares: nothing differs, so it would write nothing."""
    owner = engine_of(shop, OWNER)
    Base.metadata.create_all(owner)
    inspector = sa.inspect(owner)
    assert isinstance(inspector, PGInspector)
    assert inspector.default_schema_name == "proj_shop"
    assert [kind["name"] for kind in inspector.get_enums()] == ["mood"]
    read = sa.MetaData()
    read.reflect(owner)
    assert shape(read, owner.dialect) == shape(Base.metadata, owner.dialect)


def test_sqlalchemy_reads_what_migrations_made_and_not_where_they_are_noted(shop: Plane, tmp_path: Path) -> None:
    (tmp_path / "migrations").mkdir()
    (tmp_path / "migrations" / "1_pages.sql").write_text("create table public.pages (id int primary key);")
    (tmp_path / "seed.sql").write_text("insert into public.pages values (1);")
    with psycopg.connect(shop.lease("shop", OWNER).connection_string, autocommit=True) as session:
        migrator = Migrator(session, TenantNames("shop"))
        migrator.up(migrator.plan(migration_files(tmp_path)))
        migrator.seed(seed_files(tmp_path))
        assert [*migrator.history.entries(), *migrator.history.seeds()] == ["1", "seed.sql"]
        read = sa.MetaData()
        read.reflect(engine_of(shop, OWNER))
        assert list(read.tables) == ["pages"]
        session.execute("select data_plane_api.drop_schema('migrations', true)")
