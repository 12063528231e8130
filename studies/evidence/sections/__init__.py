"""One module per section of the page; each has `section(evidence) -> Section`."""
