"""What an evaluation leaves on disk, and how to read it: records, report, failures, kept pictures."""
