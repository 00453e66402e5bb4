"""From a fit to ArviZ's InferenceData.

`report` has estimates and standard errors of every named variable, `draws` draws of them; `inference_data` puts the
groups of a result together, the larger ones from `fit_group`, `diagnostics` and `history`.
"""
