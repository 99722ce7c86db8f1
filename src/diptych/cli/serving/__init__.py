"""Additions of ``diptych run`` to its server: limits of connections and of time, and names of hosts."""
