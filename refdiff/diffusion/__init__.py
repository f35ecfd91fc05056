"""The process that is undone: noise schedules, what the network predicts, guidance, and random streams."""
