"""`exca.verify` and `exca.repair`: what in a cache folder is whole, damaged or left over, and setting that right."""
