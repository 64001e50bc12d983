"""The command line: a module a group of commands, each thin over the connector."""
