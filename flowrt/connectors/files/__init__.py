"""Files: lines in, lines out, exactly once."""
