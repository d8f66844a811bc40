"""Objects to bytes to shared memory: everything that crosses from the kernel to a worker and back."""
