//! How the types that write themselves describe themselves in an OpenAPI document.

use crate::error::Code;
use crate::id::{Id, Noun};
use crate::json::Json;
use crate::limits::NAME_BYTES_MAX;
use crate::name::Name;
use crate::time::Time;
use crate::trace::TraceParent;
use std::borrow::Cow;
use utoipa::openapi::schema::{AnyOf, KnownFormat, Object, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

impl PartialSchema for Name {
    fn schema() -> RefOr<Schema> {
        text()
            .min_length(Some(1))
            .max_length(Some(NAME_BYTES_MAX))
            .description(Some(
                "Printable text without spaces at its ends, at most 128 bytes.",
            ))
            .into()
    }
}
impl ToSchema for Name {}

impl<N: Noun> PartialSchema for Id<N> {
    fn schema() -> RefOr<Schema> {
        text()
            .pattern(Some(format!("^{}_[0-9a-z]{{26}}$", N::PREFIX)))
            .description(Some(format!(
                "`{}_` and 26 characters; ids of later things sort later.",
                N::PREFIX
            )))
            .into()
    }
}
impl<N: Noun> ToSchema for Id<N> {
    fn name() -> Cow<'static, str> {
        let noun = N::PREFIX;
        let (first, rest) = noun.split_at(1);
        Cow::Owned(format!("{}{rest}Id", first.to_ascii_uppercase()))
    }
}

impl PartialSchema for Json {
    fn schema() -> RefOr<Schema> {
        // No type: any JSON is meant.
        let mut any = Object::default();
        any.schema_type = utoipa::openapi::schema::SchemaType::AnyValue;
        any.description = Some("Any JSON, at most 1 MiB.".to_owned());
        RefOr::T(Schema::Object(any))
    }
}
impl ToSchema for Json {}

impl PartialSchema for Time {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::Integer)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
            .description(Some("Milliseconds since 1970-01-01T00:00:00Z."))
            .into()
    }
}
impl ToSchema for Time {}

impl PartialSchema for TraceParent {
    fn schema() -> RefOr<Schema> {
        text()
            .description(Some("A `traceparent` of W3C Trace Context."))
            .into()
    }
}
impl ToSchema for TraceParent {}

impl PartialSchema for Code {
    fn schema() -> RefOr<Schema> {
        let known = Code::ALL.iter().map(|code| code.as_str());
        let known = text().enum_values(Some(known)).build();
        // A newer server may know more.
        AnyOf::builder().item(known).item(text().build()).into()
    }
}
impl ToSchema for Code {}
