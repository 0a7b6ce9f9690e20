"""The servers that `triggerkit dev` brings along: Postgres, Redis and an embeddings API."""
