"""A destination takes payload: part files are opened, written, synced and sealed, and progress is told."""
