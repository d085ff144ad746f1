"""Sampling: from a plan and seeds to images, by PyTorch or ONNX, into folders, archives, pipes and audits."""
