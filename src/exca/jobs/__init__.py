"""Where a computation runs: backends, jobs, resources, working directories."""
