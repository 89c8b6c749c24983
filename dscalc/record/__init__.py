"""One vocabulary for every format, --get and --assert."""
