"""The report of finished runs: one HTML page that needs nothing beside it."""
