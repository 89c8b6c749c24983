"""How to cite it? A sentence for a paper."""
