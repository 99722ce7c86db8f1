"""The change log: one row for each change, written in the transaction of the change."""
