"""Assertions, budgets, the selection of rows, and the verdict of a run."""
