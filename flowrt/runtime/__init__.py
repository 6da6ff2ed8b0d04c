"""The housekeeper: starts, watches and restarts a job; the only room that knows the rest."""
