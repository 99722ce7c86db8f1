"""Statements prepared once and executed again and again, on the shortest way to each database."""
