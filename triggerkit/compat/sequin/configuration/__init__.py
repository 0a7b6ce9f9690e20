"""Sequin's configuration file, as what `triggerkit.toml` says."""
