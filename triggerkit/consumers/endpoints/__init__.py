"""Endpoints: where consumers push to, with encrypted headers and signing secrets."""
