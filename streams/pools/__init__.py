"""Workers that share a consumer's entries: a command on each range, its output, its reaper. Not: who takes which."""
