//! How a kept reply is given in place of a new one: marked as what it is, and otherwise letter for letter.
//!
//! An object gets two members more, `"cached":true` and `"retryAfter":N`; anything else becomes the `data` of such an
//! object. Numbers are not read and written again, which would round what a program has written exactly.

use std::fmt;

use axum::{body::Body, response::Response};
use http::{
    HeaderName, HeaderValue,
    header::{self, AGE, CONTENT_LENGTH},
};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{cache::Stale, reply};

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const STALE_IF_ERROR: HeaderValue = HeaderValue::from_static("selfheal; hit; detail=stale-if-error");

/// The kept reply; a new one may be had in `retry_after` seconds.
pub(crate) fn stand_in(stale: &Stale, retry_after: u64) -> Response {
    let body = marked(&stale.kept.body, retry_after);
    let mut reply = Response::new(Body::empty());
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    // It is old already: nobody on the way keeps it for longer.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(AGE, HeaderValue::from(stale.age.as_secs()));
    headers.insert(CACHE_STATUS, STALE_IF_ERROR);
    *reply.body_mut() = Body::from(body);
    reply::inherit(&mut reply, stale.kept.headers.clone());
    reply
}

/// The kept document, to stand in another one.
pub(crate) fn document(stale: &Stale) -> Option<&RawValue> {
    serde_json::from_slice(&stale.kept.body).ok()
}

fn marked(body: &[u8], retry_after: u64) -> String {
    // Only what is JSON, and so UTF-8, is kept.
    let text = std::str::from_utf8(body).unwrap_or("null").trim();
    let mut marked = String::with_capacity(text.len() + 48);
    marked.push('{');
    match serde_json::from_str::<Members<'_>>(text) {
        Ok(Members(members)) => {
            let marks = ["\"cached\"", "\"retryAfter\""];
            for (name, value) in members.iter().filter(|(name, _)| !marks.contains(&name.get())) {
                marked.push_str(name.get());
                marked.push(':');
                marked.push_str(value.get());
                marked.push(',');
            }
        }
        Err(_) => {
            marked.push_str("\"data\":");
            marked.push_str(text);
            marked.push(',');
        }
    }
    marked.push_str("\"cached\":true,\"retryAfter\":");
    marked.push_str(&retry_after.to_string());
    marked.push('}');
    marked
}

/// The members of an object, in order, as they were written.
struct Members<'a>(Vec<(&'a RawValue, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_gets_two_members_and_keeps_its_own_letter_for_letter() {
        let body = br#" { "z" : 1e400, "a":[1 , 2],"k\"":null, "n":123456789012345678901234567890 } "#;
        let expected = r#"{"z":1e400,"a":[1 , 2],"k\"":null,"n":123456789012345678901234567890,"cached":true,"retryAfter":5}"#;
        assert_eq!(marked(body, 5), expected);
        assert_eq!(marked(b"{}", 1), r#"{"cached":true,"retryAfter":1}"#);
    }

    #[test]
    fn what_the_object_itself_says_about_being_kept_gives_way() {
        let body = br#"{"cached":false,"retryAfter":99,"x":1}"#;
        assert_eq!(marked(body, 2), r#"{"x":1,"cached":true,"retryAfter":2}"#);
    }

    #[test]
    fn what_is_no_object_becomes_the_data_of_one() {
        assert_eq!(marked(b"[1,2]", 3), r#"{"data":[1,2],"cached":true,"retryAfter":3}"#);
        assert_eq!(marked(b"\"x\"", 3), r#"{"data":"x","cached":true,"retryAfter":3}"#);
    }
}
