"""`cockpit check --probe`: what a few real scopes prove about what the API's reference leaves open.

`run` calls, `observations` holds what came, `findings` and the modules below it judge, `report` prints.
"""
