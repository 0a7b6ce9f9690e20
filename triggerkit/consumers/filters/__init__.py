"""Which rows a consumer gets: comparisons of columns, and functions of the project."""
