"""Label masks drawn for this project, and the script that drew them."""
