"""From a call to its outcome: records of tasks, keyed computations."""
