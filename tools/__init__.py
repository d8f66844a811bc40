"""What the Makefile runs: scripts, and the package that takes the pictures of the docs."""
