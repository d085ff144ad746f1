"""Calibrations of one's own: thresholds chosen on labels, on a control, on real images or on planted copies.

Each function returns a `deepssim.calibration.Calibration`, which says how it was made and how sure it is; no bundle is
touched.
"""
