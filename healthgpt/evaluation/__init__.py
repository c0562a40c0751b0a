"""Evaluation: metrics as pure functions, and the benchmarks that apply them to a model."""
