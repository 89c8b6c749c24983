"""Whose number is it? Counts by other counters, and the way of counting that gives a number."""
