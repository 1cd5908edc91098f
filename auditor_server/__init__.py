"""The auditor's side: orders, sessions, their logs, submitted models, verification and queries."""
