"""The program around the stacks: their model, the engines that run them, local servers, the connector, its commands."""
