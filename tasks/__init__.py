"""Actors, one module per stage of an invoice's life, with the use case beside each; enqueue()."""
