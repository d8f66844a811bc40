"""What CPython's own tests of ``concurrent.futures`` need to run against nbpar's executor."""
