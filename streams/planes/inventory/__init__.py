"""What this site has, written as manifests: files, entries, objects; once, or look after look for open intents."""
