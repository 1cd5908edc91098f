"""Sign, log and prove: pure functions over bytes and keys. No torch, no network, no database."""
