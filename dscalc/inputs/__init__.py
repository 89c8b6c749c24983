"""Text -> layers: grids on the command line, and networks in files."""
