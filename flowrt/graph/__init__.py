"""The map: what the user described, as frozen data, checked when built. Nothing runs here."""
