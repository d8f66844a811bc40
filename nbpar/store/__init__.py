"""The checkpoint file: what a job's results are known by (keys, fingerprints), and the journal that keeps them."""
