"""The bank beside the river: epochs, durable snapshots, recovery. It never touches a record."""
