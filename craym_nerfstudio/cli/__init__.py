"""The command `craym`, one file per subcommand; each imports what it needs when it runs."""
