"""Trainers of a miniature HealthGPT's frozen parts: VQGAN, ViT and base LLM, each from scratch on a small machine.

`python -m healthgpt.nano vqgan|vit|base --data FILE --output DIR` writes DIR/vqgan, DIR/vit or DIR/base as a model
folder names them. An interrupted part goes on from its last checkpoint; a finished one is left alone.
"""
