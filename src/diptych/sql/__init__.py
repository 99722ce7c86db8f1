"""The SQL database: connections, transactions, mapped classes and errors."""
