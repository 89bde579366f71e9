"""The engine: looks up, claims, runs, stores and waits, for tasks, maps and stages of pipelines alike."""
