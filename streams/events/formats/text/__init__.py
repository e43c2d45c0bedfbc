"""What the formats of lines of text share: pieces of whole lines, encodings, numbers told exactly. No format itself."""
