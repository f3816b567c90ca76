//! The one contract: trait Api, its wire types and its conformance suite.
