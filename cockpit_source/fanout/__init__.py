"""Reading on the workers of a Dask cluster, with one request budget for each tenant."""
