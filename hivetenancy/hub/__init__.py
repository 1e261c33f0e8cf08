"""HiveHub over HTTP: its wire, a client, and the four sources that are answered with it."""
