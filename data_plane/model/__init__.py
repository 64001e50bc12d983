"""Settings of stacks and project files, validated; nothing here imports Pulumi."""
