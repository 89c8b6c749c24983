"""What changed? A report compared with an earlier one."""
