"""What a convolution costs, and other ways to build it: no third party, no input or output."""
