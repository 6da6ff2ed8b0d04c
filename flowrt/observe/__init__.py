"""A job's metrics for the systems that collect such; each module needs the extra of its name."""
