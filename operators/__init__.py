"""The standard library of operators, imported as `flowrt.operators`."""

if __name__ != "flowrt.operators":
    # The folder lies beside the package and is reached through a symlink in it. Under a second name
    # every class would exist twice, and `isinstance` and restored state would silently disagree.
    raise ImportError(
        f"import flowrt.operators instead of {__name__}: the operators have one name only",
        name=__name__,
    )
