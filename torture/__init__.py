"""Campaigns that try to break a prediction: kill it, fill its disk, damage its files, feed it rubbish."""
