"""Mapped classes: their tables and columns, the values of their columns, and writes refused for their mapping."""
