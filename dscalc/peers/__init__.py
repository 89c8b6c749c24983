"""Whose number is it? What other counters print, and which way of counting gives a number."""
