"""Training of encoders. With ``models``, ``export`` and ``generate.py`` the only importers of torch."""
