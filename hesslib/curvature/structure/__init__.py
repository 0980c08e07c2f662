"""What a network's layers let us write down."""
