"""What we ask of the outside world: a protocol and its adapter each."""
