"""SQLite: its connections, its locks and its clock."""
