"""Reading PyMC graphs: the only code that walks a PyTensor graph."""
