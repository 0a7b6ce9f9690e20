"""Sequin's pull API, and its configuration file."""
