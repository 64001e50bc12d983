// Drizzle on a pool of node-postgres.
import { count, sql } from "drizzle-orm";
import { drizzle } from "drizzle-orm/node-postgres";
import { integer, pgTable, text, timestamp } from "drizzle-orm/pg-core";
import pg from "pg";

export async function open(url, settings) {
  const pool = new pg.Pool({ connectionString: url, max: 1, ...settings });
  pool.on("error", () => {});
  const db = drizzle(pool);
  await db.execute(sql`select 1`);
  return {
    rows: async (statement) => {
      const { fields, rows } = await db.execute(sql.raw(statement));
      return rows.map((row) => fields.map(({ name }) => row[name]));
    },
    idioms: () => idioms(db),
  };
}

// Without a schema: the lease's search_path says where it is.
const notes = pgTable("node_drizzle", {
  id: integer().primaryKey(),
  body: text(),
  at: timestamp({ withTimezone: true }),
});

async function idioms(db) {
  await db.execute(sql`create table if not exists node_drizzle (id int primary key, body text, at timestamptz)`);
  await db.delete(notes);

  await db.insert(notes).values([
    { id: 1, body: "one", at: new Date("2026-03-29T01:30:00Z") },
    { id: 2, body: "two" },
  ]);
  const byId = db.select().from(notes).where(sql`${notes.id} = ${sql.placeholder("id")}`).prepare("by_id");
  await byId.execute({ id: 2 });
  const [first] = await byId.execute({ id: 1 });
  const kept = await db.execute(sql`select count(*)::int as n from pg_prepared_statements where name = 'by_id'`);

  await db.transaction(async (inside) => {
    await inside.delete(notes);
    inside.rollback();
  }).catch(() => {});
  const [{ left }] = await db.select({ left: count() }).from(notes);
  return { prepared: [first.body, kept.rows[0].n], rolled_back: left, moment: first.at.toISOString() };
}
