"""The contract kits that belong to no room of their own."""
