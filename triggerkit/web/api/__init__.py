"""The API of `serve` under `/api/v1`."""
