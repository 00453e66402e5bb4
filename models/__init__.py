"""Worked examples: published data sets, the PyMC model of each, and the numbers that were published.

Each module has ``load()``, which gives the data as a :class:`pandas.DataFrame` with the columns that its docstring
names; one or more ``build(data)``, which take what ``load`` gives and make an ordinary :class:`pymc.Model` with the
variables (and dims) that the docstring names, to be fitted with ``hlik.fit`` and sampled with ``pymc.sample``; and the
published numbers as constants, each with its source. The priors of the parameters are weakly informative: they
matter for sampling and are ignored by ``hlik.fit`` unless it is asked to use them.

=================  ===========================================  ==========================================
module             response                                     random effects
=================  ===========================================  ==========================================
``seeds``          binomial, logit                              plate: Beta on the logit scale, or normal
``bacteria``       binary, logit                                child: normal
``epilepsy``       negative binomial or Poisson, log            patient: normal
``sleepstudy``     normal                                       subject: normal intercept and slope
``salamander``     binary, logit                                female and male, crossed: normal
``lip_cancer``     Poisson, log, with expected counts           district: normal, independent or CAR
``hglm_paper``     normal, normal with dispersion, Poisson      cluster: normal or gamma
``hglm_tutorial``  normal, its dispersion with random effects   individual: normal
``animal``         normal                                       animal: normal, related by a pedigree
``glucosinolates`` normal                                       marker: normal; line: normal, genomic relationship
=================  ===========================================  ==========================================

``python -m models.demo`` fits the first of them. ``data/README.md`` says where the data come from.
"""

from pathlib import Path

DATA = Path(__file__).parent / "data"
"""Folder of the CSV files that the loaders read."""
