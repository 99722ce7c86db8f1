"""Wrappers against what servers let through: foreign names of hosts, forged addresses, and bodies that trickle."""
