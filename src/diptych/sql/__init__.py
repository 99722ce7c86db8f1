"""The SQL database: connections, statements, transactions, mapped classes and errors."""
