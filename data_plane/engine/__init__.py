"""The engines that run the program."""
