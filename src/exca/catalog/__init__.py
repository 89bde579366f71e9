"""What is in a cache folder, told without importing or unpickling anything of it."""
