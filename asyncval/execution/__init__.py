"""Where validations run: one file per kind of executor."""
