//! Every case of the tables over a real wire.
