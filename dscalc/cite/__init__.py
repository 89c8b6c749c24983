"""How is it cited? A sentence for a paper."""
