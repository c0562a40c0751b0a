"""HealthGPT as a model of other evaluation kits: a file for each, which alone imports its kit."""
