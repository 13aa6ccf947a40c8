"""The database: models, engines and repositories. All SQL lives in this package."""
