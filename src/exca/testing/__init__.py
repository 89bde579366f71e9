"""For the tests of others: what every backend has to do."""
