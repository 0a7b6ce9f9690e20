"""Tests of the events REST API."""
