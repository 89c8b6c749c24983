"""Are fewer MACs faster here? Times of a layer and of its replacements."""
