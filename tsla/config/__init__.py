"""A run's config: every field, its checks, its forms on disk."""
