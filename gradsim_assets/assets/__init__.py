"""Asset factories for studies and settings."""
