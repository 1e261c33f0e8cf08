"""What every implementation of a protocol must pass: small named cases, one module a room.

A user's own engine runs them through one ``parametrize``; see `hivetenancy.testing.contracts._cases.Case`.
"""
