"""Which part of a file is asked for: entries, objects, the format of a text; each with its one text form. Pure."""
