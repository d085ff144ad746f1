"""Data sets of a generative model: records and their images, conditions, and how often each is trained on."""
