// postgres.js.
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import postgres from "postgres";

export async function open(url, settings) {
  const sql = postgres(url, { max: 1, connection: settings, onnotice: () => {} });
  await sql`select 1`;
  return {
    rows: async (text) => await sql.unsafe(text).values(),
    idioms: () => idioms(sql),
  };
}

async function idioms(sql) {
  await sql`create table if not exists node_postgres (id int, body text)`;
  await sql`truncate node_postgres`;

  let prepared;
  for (const number of [1, 41]) [{ next: prepared }] = await sql`select ${number}::int + 1 as next`;
  const [{ kept }] = await sql`select count(*)::int as kept from pg_prepared_statements where statement like 'select $1::int + 1%'`;

  await pipeline(Readable.from(["1\tone\n", "2\ttwo\n"]), await sql`copy node_postgres from stdin`.writable());
  const copied = [];
  for await (const chunk of await sql`copy (select body from node_postgres order by id) to stdout`.readable()) copied.push(chunk);

  let hear;
  const heard = new Promise((resolve) => (hear = resolve));
  const { unlisten } = await sql.listen("news", hear);
  await sql.notify("news", "hello");
  const notified = await heard;
  await unlisten();

  await sql.begin(async (inside) => {
    await inside`delete from node_postgres`;
    throw new Error("changed my mind");
  }).catch(() => {});
  const [{ left }] = await sql`select count(*)::int as left from node_postgres`;

  const [{ at }] = await sql`select timestamptz '2026-03-29 01:30:00+00' as at`;
  return {
    prepared: [prepared, kept],
    copied: Buffer.concat(copied).toString().trim().split("\n"),
    notified,
    rolled_back: left,
    moment: at.toISOString(),
  };
}
