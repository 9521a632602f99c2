"""Learning: data, models, losses, training and measuring. Knows nothing of Ray, grids or trackers.

Importing `kd` itself, `kd.recipe` and `kd.data.catalog` costs nothing; torch comes with the modules that compute.
"""
