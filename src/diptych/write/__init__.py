"""The write room: rows of mapped classes, changed in units of work, with a log entry for each change."""
