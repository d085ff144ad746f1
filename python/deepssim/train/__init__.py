"""Training of encoders. With ``models``, ``export.py`` and ``generate.py`` the only importers of torch."""
