"""Model weights: download, import, store, profiles, and training of classifiers."""
