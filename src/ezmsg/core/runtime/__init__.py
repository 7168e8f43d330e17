"""What makes a run: its phases, the tasks of its units, its processes, and how they end."""
