"""VQGAN: images <-> grids of codes. Parameter names are those of taming-transformers, so its checkpoints load."""

from taming_transformers.vqgan import GumbelVQ, VQGANConfig, load_vqgan

__all__ = ["GumbelVQ", "VQGANConfig", "load_vqgan"]
