// Pools that take a lease which was replaced. DATA_PLANE_LEASE_FILE is the dotenv file that `dataplane run` keeps right.
//
// For each line on standard input, every pool says which login it has: {"pg": "lease_…", "postgres": "lease_…"}
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { parseEnv } from "node:util";
import pg from "pg";
import postgres from "postgres";

const lease = () => parseEnv(readFileSync(process.env.DATA_PLANE_LEASE_FILE, "utf8"));

// node-postgres makes a client for every connection: this one reads the lease when it is made.
class LeasedClient extends pg.Client {
  constructor(options) {
    super({ ...options, connectionString: lease().DATABASE_URL });
  }
}
const pool = new pg.Pool({ Client: LeasedClient, max: 2 });
pool.on("error", () => {}); // an idle connection that ended with its lease; the pool drops it

// postgres.js fixes the user when it is called: call it again when the lease is another.
let sql;
let current;
function leased() {
  const { DATA_PLANE_LEASE_ID: id, DATABASE_URL: url } = lease();
  if (id !== current) {
    sql?.end({ timeout: 5 }).catch(() => {});
    [current, sql] = [id, postgres(url, { max: 2 })];
  }
  return sql;
}

for await (const _ of createInterface({ input: process.stdin })) {
  const answer = {};
  // What else has come by now is seen first: that the server has ended a session.
  await new Promise(setImmediate);
  try {
    answer.pg = (await pool.query("select session_user as login")).rows[0].login;
    [{ login: answer.postgres }] = await leased()`select session_user as login`;
  } catch (error) {
    answer.error = error.message;
  }
  process.stdout.write(JSON.stringify(answer) + "\n");
}
process.exit(0);
