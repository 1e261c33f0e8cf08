"""Requests in a language of their own, confined to one tenant: what goes in, and what comes out."""
