"""What holds: assertions, and the verdict of a run."""
