"""Rooms for web frameworks, each a thin layer over `diptych.http`; each needs the extra of its name."""
