// node-postgres.
import { once } from "node:events";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import pg from "pg";
import copy from "pg-copy-streams";

export async function open(url, settings) {
  const client = new pg.Client({ connectionString: url, ...settings });
  let ended;
  client.on("error", (error) => (ended ??= error)); // unheard, it would end the process
  await client.connect();
  return {
    rows: async (text) => {
      if (ended) throw ended;
      return (await client.query({ text, rowMode: "array" })).rows;
    },
    idioms: () => idioms(client),
  };
}

async function idioms(client) {
  await client.query("create table if not exists node_pg (id int, body text)");
  await client.query("truncate node_pg");

  const named = { name: "by-id", text: "select $1::int + 1 as next" };
  await client.query({ ...named, values: [1] });
  const prepared = (await client.query({ ...named, values: [41] })).rows[0].next;
  const kept = (await client.query("select count(*)::int as n from pg_prepared_statements where name = 'by-id'")).rows[0].n;

  await pipeline(Readable.from(["1\tone\n", "2\ttwo\n"]), client.query(copy.from("copy node_pg from stdin")));
  const copied = [];
  for await (const chunk of client.query(copy.to("copy (select body from node_pg order by id) to stdout"))) copied.push(chunk);

  await client.query("listen news");
  const [[message]] = await Promise.all([once(client, "notification"), client.query("notify news, 'hello'")]);

  await client.query("begin");
  await client.query("delete from node_pg");
  await client.query("rollback");
  const left = (await client.query("select count(*)::int as n from node_pg")).rows[0].n;

  const moment = (await client.query("select timestamptz '2026-03-29 01:30:00+00' as at")).rows[0].at;
  return {
    prepared: [prepared, kept],
    copied: Buffer.concat(copied).toString().trim().split("\n"),
    notified: message.payload,
    rolled_back: left,
    moment: moment.toISOString(),
  };
}
