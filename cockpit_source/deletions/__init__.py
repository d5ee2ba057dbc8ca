"""The two deletions of the API, from a query on the warehouse to a ledger of what became of each.

Nothing of the load imports this package. Read it in this order: `records` (what a plan holds), `selection` (the
query), `inventory` and `live` (the evidence), `guards` (what must hold), `planner`, `ledger`, `history` (what the
ledger says), `applier`, `delete_client` (the only module that can delete), `proof` and `verifier`.
"""
