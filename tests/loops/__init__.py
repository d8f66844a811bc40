"""Loops that a machine wrote, run serially and in parallel: nobody believes a loop that nobody tried to break."""
