"""SQLite: rows in, rows out, rows looked up."""
