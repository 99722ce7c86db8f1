"""A shop's products and their suppliers."""
