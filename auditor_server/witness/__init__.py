"""A witness: cosigns the checkpoints of logs that it follows (c2sp.org/tlog-witness).

It is run by somebody other than the auditor, and shares nothing with the auditor's server.
"""
