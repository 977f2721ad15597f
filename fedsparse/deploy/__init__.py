"""Real clients on this machine: Flower's stock processes, their credentials, and a keeper that ends them all.

Nothing here imports flwr: its commands are started as anyone would start them.
"""
