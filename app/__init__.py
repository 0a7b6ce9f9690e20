"""The reference app: posts, their embeddings, and a search over them."""
