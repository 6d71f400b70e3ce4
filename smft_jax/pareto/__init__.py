"""Learning against forgetting: what the table of a sweep comes to."""
