"""The BMM session protocol, served: others search over a pool that they cannot see."""
