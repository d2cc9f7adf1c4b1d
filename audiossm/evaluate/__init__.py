"""Scoring: how well the models do, measured the same way each time."""
