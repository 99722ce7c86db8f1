"""Rooms for web frameworks, each thin over `diptych.http`; each needs the extra of its name."""
