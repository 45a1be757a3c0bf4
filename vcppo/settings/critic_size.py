"""The size of a critic that is a network of its own: what `critic.init = new` says of it, and the policy's else."""

from dataclasses import dataclass, replace

from vcppo.settings.critic import NewCriticSettings

CRITIC_SIZE = ("layers", "hidden_size", "intermediate_size", "heads")  # settings of a new critic


@dataclass(frozen=True)
class Size:
    """A decoder's shape."""

    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int

    @property
    def misfit(self) -> str | None:
        """Name sizes that do not go together, with those that would; None if all do."""
        if self.head_dim != self.hidden_size // self.heads:
            return None  # as in the policy, whose heads have a width of their own
        if self.hidden_size % self.heads == 0 and self.head_dim % 2 == 0:
            return None
        return (
            f"critic.hidden_size {self.hidden_size}, critic.heads {self.heads}: expected a hidden_size that is an even "
            "multiple of heads (unset, they are the policy's)"
        )


def size_of(critic: NewCriticSettings, policy: Size) -> Size:
    """The critic's shape; whether it fits is `misfit`'s to say.

    Key/value heads are as many as the policy's where that divides the heads, else as many as the heads. The width of
    a head follows from the two sizes once one of them is given.
    """
    heads = critic.heads or policy.heads
    hidden = critic.hidden_size or policy.hidden_size
    as_the_policy = critic.heads is None and critic.hidden_size is None
    return replace(
        policy,
        hidden_size=hidden,
        intermediate_size=critic.intermediate_size or policy.intermediate_size,
        layers=critic.layers or policy.layers,
        heads=heads,
        kv_heads=policy.kv_heads if heads % policy.kv_heads == 0 else heads,
        head_dim=policy.head_dim if as_the_policy else hidden // heads,
    )
