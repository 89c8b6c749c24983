"""Costs of convolutions and of the blocks that replace them: no third party, no input or output."""
