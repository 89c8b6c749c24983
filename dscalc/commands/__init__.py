"""The commands, one module each; a module is imported only if its command is asked for."""
