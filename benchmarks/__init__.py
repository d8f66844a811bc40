"""Speed, measured: paired ratios against peers in one run, never an assertion of a test."""
