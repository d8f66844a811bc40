"""What runs inside a worker, and nothing else."""
