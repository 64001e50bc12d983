// What drizzle-kit is told to read a lease's schema: its name and where it is, and nothing else.
export default {
  dialect: "postgresql",
  out: "./pulled",
  schemaFilter: [process.env.SUPABASE_SCHEMA],
  dbCredentials: { url: process.env.DATABASE_URL },
};
