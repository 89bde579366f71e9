"""Pages to look at: what is in a cache folder as HTML, from the rows of the catalog."""
