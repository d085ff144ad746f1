"""Encoders in PyTorch. This folder, ``train``, ``export`` and ``generate.py`` are the only importers of torch.

An encoder takes raw grey images ``(n, 1, height, width)`` in any unit and returns embeddings ``(n, dim)`` of unit norm:
the intensity rule is inside, so that nothing can be forgotten outside.
"""
