"""The benchmark with known truth: copies of real images that were made, among images of other people.

Its ranges are frozen (`deepssim.perturb`): a figure under other ranges is another benchmark.
"""
