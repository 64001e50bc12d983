// A schema in Drizzle's words.
import { sql } from "drizzle-orm";
import { bigint, pgPolicy, pgRole, pgSchema, text } from "drizzle-orm/pg-core";

// Not exported: drizzle-kit writes CREATE SCHEMA for what is.
const tenant = pgSchema(process.env.SUPABASE_SCHEMA);
const authenticated = pgRole(`${process.env.SUPABASE_SCHEMA}_authenticated`).existing();

export const mood = tenant.enum("mood", ["fine", "foul"]);

export const authors = tenant.table(
  "authors",
  {
    id: bigint({ mode: "number" }).primaryKey().generatedAlwaysAsIdentity(),
    name: text().notNull().unique(),
    mood: mood().default("fine"),
  },
  () => [pgPolicy("reading", { for: "select", to: authenticated, using: sql`true` })],
);

export const books = tenant.table("books", {
  id: bigint({ mode: "number" }).primaryKey().generatedAlwaysAsIdentity(),
  title: text().notNull(),
  author: bigint({ mode: "number" }).references(() => authors.id, { onDelete: "cascade" }),
});
