"""What a person starts: the ``audiossm`` command."""
