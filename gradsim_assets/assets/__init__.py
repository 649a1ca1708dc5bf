"""Factories of assets: of a study, or of one of its settings."""
