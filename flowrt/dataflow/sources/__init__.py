"""Tasks that begin a flow: splits read and sent."""
