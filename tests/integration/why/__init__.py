"""Why a row has no effect."""
