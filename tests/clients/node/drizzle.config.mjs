// drizzle-kit with a lease: it is told the schema's name, and writes migrations that are named as Supabase's are.
export default {
  dialect: "postgresql",
  schema: "./schema.mjs",
  out: process.env.DRIZZLE_OUT,
  schemaFilter: [process.env.SUPABASE_SCHEMA],
  migrations: { prefix: "supabase" },
  dbCredentials: { url: process.env.DATABASE_URL },
};
