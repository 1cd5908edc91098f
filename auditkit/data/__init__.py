"""Pools of samples, and keyed commitments to them."""
