"""Pure logic: no process, no socket, no IPython, no numpy. Tested without starting anything."""
