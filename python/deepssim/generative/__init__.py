"""What generating images needs of its own and without PyTorch: sizes, records, conditions, shapes, sampling.

A data set is records; records become images from 0 to 1; a variational autoencoder makes latents of them; a U-Net
learns the noise of latents; a sampler turns seeds into images.
"""
