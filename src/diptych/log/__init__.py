"""The change log: a row for each change, written in the transaction of the change."""
