"""The commands, a module each: imported only when they are asked for."""
