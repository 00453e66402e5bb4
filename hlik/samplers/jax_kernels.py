"""NUTS of numpyro and blackjax on one log density with the parameters as inputs, so that nothing is compiled twice.

`pymc.sampling.jax.sample_numpyro_nuts` and `sample_blackjax_nuts` write the parameters into the graph as constants and
compile it anew at every call. PyMC's `get_jaxified_graph` with the parameters among its inputs, and the two packages'
kernels, are public too.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np

from hlik.samplers.source import EffectsModel

KINDS = ("numpyro", "blackjax")
MOST_BYTES = 2**25  # of the draws of one call
MOST_AT_ONCE = 256  # draws of one call


def missing(kind: str) -> list[str]:
    """The packages that a sampler needs and that are not installed."""
    return [name for name in ("jax", kind) if find_spec(name) is None]


class Density:
    """log f(y, u) in JAX: of the random effects' value variables, side by side, and of the parameters.

    Attributes
    ----------
    names
        The parameters that it takes, in order: those that the intervened model has.
    size
        Number of elements of x.
    traced
        How often JAX has read it; every reading is part of a compilation.
    """

    def __init__(self, effects: EffectsModel, values: dict[str, np.ndarray]):
        import pytensor.tensor as pt
        from pymc.sampling.jax import get_jaxified_graph
        from pytensor.graph.replace import clone_replace

        model = effects.model
        self.names = [name for name in values if name in model.named_vars]
        inputs = [pt.tensor(name, dtype=model[name].dtype, shape=values[name].shape) for name in self.names]
        known = dict(zip((model[name] for name in self.names), inputs, strict=True))
        (logp,) = clone_replace([model.logp()], replace=known)
        self._graph = get_jaxified_graph(inputs=[*model.value_vars, *inputs], outputs=[logp])
        self._shapes = [value.type.shape for value in model.value_vars]
        if any(size is None for shape in self._shapes for size in shape):
            point = model.initial_point()
            self._shapes = [point[value.name].shape for value in model.value_vars]
        self._ends = np.cumsum([int(np.prod(shape)) for shape in self._shapes])
        self.size = int(self._ends[-1])
        self.traced = 0

    def __call__(self, x: Any, parameters: tuple[Any, ...]) -> Any:
        """At one x (q,)."""
        self.traced += 1
        starts = [0, *self._ends[:-1]]
        parts = [
            x[start:end].reshape(shape) for start, end, shape in zip(starts, self._ends, self._shapes, strict=True)
        ]
        return self._graph(*parts, *parameters)[0]


def numpyro_kernel(density: Density, tune: int) -> tuple[Callable, Callable]:
    """``begin`` and ``go_on`` by numpyro, for one chain; see `compiled`."""
    import jax
    from numpyro.infer.hmc import hmc

    def energy(parameters: tuple[Any, ...]) -> Callable:
        return lambda x: -density(x, parameters)

    def begin(key: Any, x: Any, parameters: tuple[Any, ...]) -> tuple[Any, Any, Any]:
        init, sample = hmc(potential_fn_gen=energy)
        state = init(x, num_warmup=tune, model_args=(parameters,), rng_key=key)
        state = jax.lax.fori_loop(0, tune, lambda k, at: sample(at, model_args=(parameters,)), state)
        return state.z, state.adapt_state.step_size, state.adapt_state.inverse_mass_matrix

    def go_on(key: Any, x: Any, parameters: tuple[Any, ...], step_size: Any, metric: Any) -> tuple[Any, Callable]:
        init, sample = hmc(potential_fn_gen=energy)
        state = init(
            x,
            num_warmup=0,
            step_size=step_size,
            inverse_mass_matrix=metric,
            adapt_step_size=False,
            adapt_mass_matrix=False,
            model_args=(parameters,),
            rng_key=key,
        )

        def one(at: Any, key: Any) -> tuple[Any, Any, dict[str, Any]]:
            at = sample(at, model_args=(parameters,))
            stats = {
                "diverging": at.diverging,
                "n_steps": at.num_steps,
                "energy": at.energy,
                "mean_tree_accept": at.accept_prob,
                "lp": -at.potential_energy,
            }
            return at, at.z, stats

        return state, one

    return begin, go_on


def blackjax_kernel(density: Density, tune: int) -> tuple[Callable, Callable]:
    """``begin`` and ``go_on`` by blackjax, for one chain; see `compiled`."""
    import blackjax
    from blackjax.adaptation.base import get_filter_adapt_info_fn

    step = blackjax.nuts.build_kernel()

    def begin(key: Any, x: Any, parameters: tuple[Any, ...]) -> tuple[Any, Any, Any]:
        adaptation = blackjax.window_adaptation(
            blackjax.nuts, lambda at: density(at, parameters), adaptation_info_fn=get_filter_adapt_info_fn()
        )
        found, _ = adaptation.run(key, x, num_steps=tune)
        return found.state.position, found.parameters["step_size"], found.parameters["inverse_mass_matrix"]

    def go_on(key: Any, x: Any, parameters: tuple[Any, ...], step_size: Any, metric: Any) -> tuple[Any, Callable]:
        def log_density(at: Any) -> Any:
            return density(at, parameters)

        def one(at: Any, key: Any) -> tuple[Any, Any, dict[str, Any]]:
            at, told = step(key, at, log_density, step_size, metric)
            stats = {
                "diverging": told.is_divergent,
                "n_steps": told.num_integration_steps,
                "energy": told.energy,
                "mean_tree_accept": told.acceptance_rate,
                "lp": at.logdensity,
            }
            return at, at.position, stats

        return blackjax.nuts.init(x, log_density), one

    return begin, go_on


def compiled(kind: str, density: Density, tune: int, chains: int) -> tuple[Callable, Callable, int]:
    """Two jitted functions of all chains side by side, and the most draws that a call of the second gives.

    ``begin(keys, x, parameters)`` adapts: positions (chains, q), step sizes (chains,), diagonal inverse mass matrices
    (chains, q). ``go_on(keys, x, parameters, step_size, metric, count)`` draws: positions, draws of which the first
    `count` are filled, statistics likewise. `count` and the parameters are inputs: neither compiles anything anew.
    """
    import jax
    import jax.numpy as jnp

    own_begin, own_go_on = (numpyro_kernel if kind == "numpyro" else blackjax_kernel)(density, tune)
    most = int(np.clip(MOST_BYTES // (8 * density.size * chains), 16, MOST_AT_ONCE))

    def drawn(key: Any, x: Any, parameters: tuple[Any, ...], step_size: Any, metric: Any, count: Any) -> Any:
        first, others = jax.random.split(key)
        state, one = own_go_on(first, x, parameters, step_size, metric)
        _, _, shapes = jax.eval_shape(one, state, others)
        room = {name: jnp.zeros(most, shape.dtype) for name, shape in shapes.items()}

        def body(k: Any, carried: Any) -> Any:
            at, draws, stats = carried
            at, position, told = one(at, jax.random.fold_in(others, k))
            return at, draws.at[k].set(position), {name: stats[name].at[k].set(told[name]) for name in stats}

        _, draws, stats = jax.lax.fori_loop(0, count, body, (state, jnp.zeros((most, density.size)), room))
        return draws[count - 1], draws, stats

    begin = jax.jit(jax.vmap(own_begin, in_axes=(0, 0, None)))
    go_on = jax.jit(jax.vmap(drawn, in_axes=(0, 0, None, 0, 0, None)))
    return begin, go_on, most
