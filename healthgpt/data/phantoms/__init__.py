"""Phantoms: synthetic medical images with known truth, drawn from a seed. They only look like medical data."""
