"""A store that is shared by all tenants, and what stands in front of it."""
