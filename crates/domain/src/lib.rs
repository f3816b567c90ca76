//! What may happen: pure decisions and folds, without IO, clock or chance.
