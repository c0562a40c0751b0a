"""Training and evaluation data: records, mixtures of sources, cached VQ codes, batches."""
