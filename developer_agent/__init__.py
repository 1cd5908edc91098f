"""The developer's side: a supervised training run, and its log on the way to the auditor.

`run_folder` keeps a run on disk, `recorder` writes what happened into a `spool`, `committer` turns
the spool into the session's log, checkpoint by checkpoint, and `uplink` does so in the background,
through the `client` of the auditor's server.
"""
