"""Find out whether a generative model for medical images copies its training patients.

The rooms, in the order in which an image passes through them: `deepssim.images` reads, `deepssim.embed`
turns images into embeddings with a metric bundle (`deepssim.metric`), `deepssim.store` keeps them,
`deepssim.search` finds the nearest exactly and in bounded memory, `deepssim.audit` counts and concludes,
`deepssim.report` shows. Importing this package loads none of them.
"""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
