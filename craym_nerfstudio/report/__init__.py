"""What a finished run tells its user: record, summary, pictures, and one HTML page about runs side by side."""
