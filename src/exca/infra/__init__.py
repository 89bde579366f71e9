"""What the three infras share."""
