"""Training of the two networks of a latent diffusion model: the autoencoder and the U-Net."""
