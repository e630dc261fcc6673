"""What `make lint` holds of the tree besides swift format: see `scripts/tidy`."""
