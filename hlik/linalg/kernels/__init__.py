"""The compiled kernels. Import them through `hlik.linalg.compiled.kernels`: importing a module here compiles it."""
