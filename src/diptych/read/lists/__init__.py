"""Lists: how their entries sort, their cursors and their pages."""
