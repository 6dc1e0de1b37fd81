"""Files on disk: written atomically, checked by digest, protected by locks."""
