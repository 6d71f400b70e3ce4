"""Learning against forgetting, from the table of a sweep."""
