"""Is fewer also faster here? Times of a layer and of its replacements."""
