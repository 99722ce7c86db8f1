"""Lists: their order, list entries, page cursors and pages; a half for each store (``in_sql``, ``in_redis``)."""
