"""The Dagster assets and their checks.

Importing this package switches off Dagster's warnings about preview and beta features, for every command that uses an
asset. Partitioned checks are preview in Dagster 1.13. They are needed: a failed check blocks one sample, not all.
"""

import warnings

import dagster as dg

warnings.filterwarnings("ignore", category=dg.PreviewWarning)
warnings.filterwarnings("ignore", category=dg.BetaWarning)
