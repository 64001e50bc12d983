// One session of a client, driven over standard input and output: a JSON request a line, a JSON answer a line.
//
//   node session.mjs pg|postgres|drizzle
//   {"open": "postgresql://…", "settings": {"application_name": "…"}}   → {"rows": []}
//   {"rows": "select …"}                                                → {"rows": [["1", null], …]}
//   {"idioms": true}                                                    → {"idioms": {…}}
//
// Values come as text. An error is {"error": {"code": "42501", "message": "…"}}.
import { createInterface } from "node:readline";

const { open } = await import(`./${process.argv[2]}.mjs`);
let session;

async function answer(request) {
  if (request.open) {
    session = await open(request.open, request.settings ?? {});
    return { rows: [] };
  }
  if (request.idioms) return { idioms: await session.idioms() };
  return { rows: (await session.rows(request.rows)).map((row) => row.map((value) => (value === null ? null : String(value)))) };
}

for await (const line of createInterface({ input: process.stdin })) {
  let result;
  try {
    result = await answer(JSON.parse(line));
  } catch (error) {
    const cause = error.cause ?? error; // Drizzle wraps the driver's
    result = { error: { code: cause.code ?? null, message: cause.message } };
  }
  process.stdout.write(JSON.stringify(result) + "\n");
}
process.exit(0);
