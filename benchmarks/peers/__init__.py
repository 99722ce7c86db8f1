"""What diptych is measured beside: the same catalogue, each written as its own documentation advises.

Where its data are, each finds in its environment: ``REDIS_URL``, ``DATABASE_URL``. The books in Redis are
``book:<title>``, the JSON of a document, and ``books``, a sorted set of the titles. The tables in SQL are
those that diptych makes, its change log among them.
"""
