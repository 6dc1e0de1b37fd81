"""The assets and their checks.

Whatever imports one of them, also a command that needs no more than one, shows none of Dagster's warnings about what
it marks preview or beta. Partitioned checks are preview in Dagster 1.13; they are what per-sample blocking needs.
"""

import warnings

import dagster as dg

warnings.filterwarnings("ignore", category=dg.PreviewWarning)
warnings.filterwarnings("ignore", category=dg.BetaWarning)
